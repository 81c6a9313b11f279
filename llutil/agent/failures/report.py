"""The report on a failed job: one screen, with the first failure in full and the others in a line
each.

``WorkersFailed`` is a subclass of torch's ``ChildFailedError``, so that ``except`` clauses and
``@record`` keep working; its text names the cause. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from llutil.agent.worker_side.outcome_pipe import ErrorNote
from llutil.agent.workers.rank_exit import RankExit
from llutil.agent_socket.round_end import RankEnd, RoundEnd, RoundEndKind
from llutil.failure import Failure, FailureClass, JobFailure
from llutil.system.number_ranges import ranges

__all__ = ["FailureReport", "WorkersFailed", "process_failures"]

_NO_FILE = "<N/A>"
"""What torch writes in place of an error file that is missing."""

_MOST_LISTED = 4
"""How many ranks that failed after the first one get a line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """A job that failed, as one of its nodes knows it.

    ``job_failure`` is what went wrong in the whole job, as far as this node knows. ``own`` is the
    first failure on this node, if a rank of it failed by itself; ``others`` are then its other
    ranks. ``besides`` is another trouble, which kept the job from going on after that failure.
    """

    name: str
    job_failure: JobFailure
    own: Failure | None = None
    others: tuple[RankExit, ...] = ()
    log_folder: str = ""
    besides: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether the first failure of the job was on another node."""
        return self.own is None or self.own != self.job_failure.failure

    @property
    def text(self) -> str:
        """The report's text, for people."""
        first, own = self.job_failure.failure, self.own
        if first is None:
            lines = [f"{self.name} failed: {self.job_failure.why}", ""]
        else:
            lines = [f"{self.name} failed: rank {first.rank}: {first.reason}", *first.lines, ""]
        if own is None:
            return "\n".join([*lines, "no rank of this node failed by itself"])
        whose = "every rank"
        if own != first:
            whose = "this node's ranks"
            lines.append(f"on this node rank {own.rank} (pid {own.pid}) failed: {own.reason}")
        lines += self._after_own
        if self.besides:
            lines.append(f"besides, {self.besides}")
        if self.job_failure.failure_class is not FailureClass.BAD_CONFIGURATION:
            # After a bad configuration the reason says all: nobody needs the log files.
            lines.append(f"logs of {whose}: {self.log_folder}")
        return "\n".join(lines).rstrip()

    @property
    def failed_after_own(self) -> list[RankExit]:
        """This node's other ranks that failed by themselves."""
        return [one for one in self.others if one.failed and not one.only_stopped]

    @property
    def round_end(self) -> RoundEnd:
        """How the round ended on this node, as a value."""
        assert self.own is not None
        own, host = self.own, self.own.host
        first = RankEnd(
            rank=own.rank,
            host=host,
            status=own.exit_status,
            why=own.reason,
            culprit=not self.elsewhere,
        )
        others = (
            RankEnd(rank=one.rank, host=host, status=one.status, why=one.reason)
            for one in self.failed_after_own
        )
        return RoundEnd(
            kind=RoundEndKind.FAILURE,
            why=self.job_failure.why,
            failure=self.job_failure,
            ranks=(first, *others),
        )

    @property
    def _after_own(self) -> list[str]:
        failed = self.failed_after_own
        stopped = [one.rank for one in self.others if one.only_stopped]
        lines = [f"rank {one.rank} failed after it: {one.reason}" for one in failed[:_MOST_LISTED]]
        if len(failed) > _MOST_LISTED:
            lines.append(f"and {len(failed) - _MOST_LISTED} more ranks failed after it")
        if stopped:
            lines.append(f"ranks ended because of it: {ranges(stopped)}")
        return lines


class WorkersFailed(ChildFailedError):
    """At least one rank failed and no restart was left. ``report`` has it as a value.

    ``failures`` are torch's records of the failed ranks, by global rank: the first one of the job,
    which may be another node's, and then those of this node.
    """

    def __init__(self, report: FailureReport, failures: Mapping[int, ProcessFailure]) -> None:
        self.report = report
        if report.elsewhere:
            failures = {**_failure_elsewhere(report.job_failure), **failures}
        # torch's own code finds the first failure by timestamp. These are in whole seconds and from
        # several hosts, so give the first failure the earliest one.
        first, *others = failures.values()
        first.timestamp = min(one.timestamp for one in (first, *others))
        super().__init__(report.name, dict(failures))

    @property
    def job_failure(self) -> JobFailure:
        """What went wrong in the whole job, as one value."""
        return self.report.job_failure

    @property
    def failure_class(self) -> FailureClass:
        """What kind of failure the first one was."""
        return self.job_failure.failure_class

    @property
    def failure(self) -> Failure | None:
        """The job's first failure, with all that is known of it; None if the node that had it did
        not report it.
        """
        return self.job_failure.failure

    def get_first_failure(self) -> tuple[int, ProcessFailure]:
        """The job's first failure. torch would compare times for it, which are in whole seconds and
        from several hosts.
        """
        rank: int = next(iter(self.failures))
        return rank, self.failures[rank]

    def format_msg(self, boarder_delim: str = "=", section_delim: str = "-") -> str:
        """The report's text. torch's own text would be a frame around "N/A". The parameters are
        torch's and are not used.
        """
        del boarder_delim, section_delim
        return self.report.text


def process_failures(
    report: FailureReport, error_files: Mapping[int, Path]
) -> dict[int, ProcessFailure]:
    """torch's records of this node's failed ranks, the first failure first."""
    if report.own is None:
        return {}
    file = error_files.get(report.own.local_rank)
    found = {report.own.rank: _failure_record(report.own, file)}
    for one in report.failed_after_own:
        said = one.note.trace if isinstance(one.note, ErrorNote) else ""
        found[one.rank] = _make_record(
            one.local_rank, one.pid, one.status, said or one.reason, error_files.get(one.local_rank)
        )
    return found


def _failure_record(failure: Failure, error_file: Path | None) -> ProcessFailure:
    return _make_record(
        failure.local_rank,
        failure.pid,
        failure.exit_status,
        failure.trace or failure.reason,
        error_file,
    )


def _make_record(
    local_rank: int, pid: int, status: int, message: str, error_file: Path | None
) -> ProcessFailure:
    def made(file: str) -> ProcessFailure:
        return ProcessFailure(local_rank=local_rank, pid=pid, exitcode=status, error_file=file)

    try:
        if error_file is not None and error_file.is_file():
            return made(str(error_file))
    except Exception:  # noqa: BLE001, S110 - torch parses the file, which may be incomplete
        pass
    failure = made(_NO_FILE)
    failure.message = message
    # torch's default is one dict that all records share, so this record gets its own.
    failure.error_file_data = {
        "message": {"message": message, "extraInfo": {"timestamp": str(failure.timestamp)}}
    }
    return failure


def _failure_elsewhere(job_failure: JobFailure) -> dict[int, ProcessFailure]:
    """torch's record of a failure on another node. If that node reported none, one record with rank
    -1.
    """
    if job_failure.failure is None:
        return {-1: _make_record(-1, 0, 1, job_failure.why, None)}
    return {job_failure.failure.rank: _failure_record(job_failure.failure, None)}
