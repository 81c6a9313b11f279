"""What is said when a rank fails: one screen, the first failure in full, the others in a line.

``WorkersFailed`` is torch's ``ChildFailedError``, so that ``except`` clauses and ``@record`` keep
working, with a text that names the root cause. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from llutil.agent.worker_side.outcome_pipe import ErrorNote
from llutil.agent.workers.rank_exit import RankExit
from llutil.failure import Failure, FailureClass, JobFailure

__all__ = ["FailureReport", "WorkersFailed", "process_failures"]

_NO_FILE = "<N/A>"
"""torch's word for an error file that is not there."""

_FOLDED = 4
"""How many ranks that failed after the first get a line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """A job that failed, as one of its nodes sees it.

    ``job_failure`` is what went wrong in the whole job, as far as this node knows. ``own`` is this
    node's own first failure, if a rank of it failed by itself; ``others`` are its other ranks then.
    """

    name: str
    job_failure: JobFailure
    own: Failure | None = None
    others: tuple[RankExit, ...] = ()
    log_folder: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether the first failure of the job was not this node's."""
        return self.own is None or self.own != self.job_failure.failure

    @property
    def text(self) -> str:
        """The report, to be read by a human."""
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
        if self.job_failure.failure_class is not FailureClass.BAD_CONFIGURATION:
            # After a bad configuration the reason says all: nobody needs the log files.
            lines.append(f"logs of {whose}: {self.log_folder}")
        return "\n".join(lines).rstrip()

    @property
    def failed_after_own(self) -> list[RankExit]:
        """This node's other ranks that failed by themselves."""
        return [one for one in self.others if one.failed and not one.was_ended]

    @property
    def _after_own(self) -> list[str]:
        failed = self.failed_after_own
        stopped = [one.rank for one in self.others if one.was_ended]
        lines = [f"rank {one.rank} failed after it: {one.reason}" for one in failed[:_FOLDED]]
        if len(failed) > _FOLDED:
            lines.append(f"and {len(failed) - _FOLDED} more ranks failed after it")
        if stopped:
            lines.append(f"ranks ended because of it: {_ranges(stopped)}")
        return lines


class WorkersFailed(ChildFailedError):
    """At least one rank failed and no restart was left. ``report`` has it as a value.

    ``failures`` are torch's records of the failed ranks, by global rank: the first one of the job,
    which may be another node's, and then those of this node.
    """

    def __init__(self, report: FailureReport, failures: Mapping[int, ProcessFailure]) -> None:
        self.report = report
        if report.elsewhere:
            failures = {**_elsewhere(report.job_failure), **failures}
        # Who looks for the first by torch's times, in whole seconds and of several hosts, is to
        # find the same one.
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
        """The first one of the whole job with all that is known of it; None if its node did not
        tell.
        """
        return self.job_failure.failure

    def get_first_failure(self) -> tuple[int, ProcessFailure]:
        """The first one, which torch would look for by times, in whole seconds, of several
        hosts.
        """
        rank: int = next(iter(self.failures))
        return rank, self.failures[rank]

    def format_msg(self, boarder_delim: str = "=", section_delim: str = "-") -> str:
        """The report's text, in place of torch's frame around "N/A"; the parameters are torch's and
        unused.
        """
        del boarder_delim, section_delim
        return self.report.text


def process_failures(
    report: FailureReport, error_files: Mapping[int, Path]
) -> dict[int, ProcessFailure]:
    """torch's own record of this node's failed ranks, the first one first."""
    if report.own is None:
        return {}
    file = error_files.get(report.own.local_rank)
    found = {report.own.rank: _of_failure(report.own, file)}
    for one in report.failed_after_own:
        said = one.note.trace if isinstance(one.note, ErrorNote) else ""
        found[one.rank] = _process_failure(
            one.local_rank, one.pid, one.status, said or one.reason, error_files.get(one.local_rank)
        )
    return found


def _of_failure(failure: Failure, error_file: Path | None) -> ProcessFailure:
    return _process_failure(
        failure.local_rank,
        failure.pid,
        failure.exit_status,
        failure.trace or failure.reason,
        error_file,
    )


def _process_failure(
    local_rank: int, pid: int, status: int, message: str, error_file: Path | None
) -> ProcessFailure:
    def made(file: str) -> ProcessFailure:
        return ProcessFailure(local_rank=local_rank, pid=pid, exitcode=status, error_file=file)

    try:
        if error_file is not None and error_file.is_file():
            return made(str(error_file))
    except Exception:  # noqa: BLE001, S110 - torch parses a file that may be cut off
        pass
    failure = made(_NO_FILE)
    failure.message = message
    # torch's default for all records is one shared dict; without a file, ours says what there is to
    # say.
    failure.error_file_data = {
        "message": {"message": message, "extraInfo": {"timestamp": str(failure.timestamp)}}
    }
    return failure


def _elsewhere(told: JobFailure) -> dict[int, ProcessFailure]:
    """torch's record of a failure on another node; without a word of it, one that stands for all
    other ranks.
    """
    if told.failure is None:
        return {-1: _process_failure(-1, 0, 1, told.why, None)}
    return {told.failure.rank: _of_failure(told.failure, None)}


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    parts: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
