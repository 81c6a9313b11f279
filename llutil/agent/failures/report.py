"""What is said when a rank fails: one screen, the first failure in full, the others in a line.

``WorkersFailed`` is torch's ``ChildFailedError``, so that ``except`` clauses and ``@record`` keep
working, with a text that names the root cause. Deciding which failure was first is
``first_failure``'s; nothing here acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from llutil.agent.failures.classify import is_echo
from llutil.agent.failures.describe import said_by
from llutil.agent.worker_side.outcome_pipe import ErrorNote
from llutil.agent.workers.rank_exit import RankExit
from llutil.failure import Failure, FailureClass

__all__ = [
    "FailureReport",
    "RemoteReport",
    "WorkersFailed",
    "first_failure",
    "process_failures",
]

_NO_FILE = "<N/A>"
"""torch's word for an error file that is not there."""

_FOLDED = 4  # ranks that failed after the first and get a line each


def first_failure(ended: Sequence[RankExit]) -> RankExit:
    """The failed rank that failed first on this host's clock.

    Who was asked to end before it failed does not count, if another one did. And a rank that only
    says that a peer went away may say so before the peer's own end was seen: it counts if nobody
    else failed.
    """
    failed = [one for one in ended if one.failed]
    candidates = [one for one in failed if not one.asked] or failed
    return min(candidates, key=lambda one: (is_echo(one.status, said_by(one)), one.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """A failed round of this node's as a value. ``first`` failed first, ``others`` are the node's
    other ranks.
    """

    name: str
    first: Failure
    others: tuple[RankExit, ...]
    fatal: bool
    log_folder: str

    @property
    def failure_class(self) -> FailureClass:
        """What kind of failure the first one was."""
        return self.first.failure_class

    @property
    def text(self) -> str:
        """The report, to be read by a human."""
        logs = f"logs of every rank: {self.log_folder}"
        return "\n".join([*_story(self.name, self.first), "", *self.aftermath, logs])

    @property
    def aftermath(self) -> list[str]:
        """Lines on the node's other ranks."""
        failed = [one for one in self.others if one.failed and not one.was_ended]
        stopped = [one.rank for one in self.others if one.was_ended]
        lines = [f"rank {one.rank} failed after it: {one.reason}" for one in failed[:_FOLDED]]
        if len(failed) > _FOLDED:
            lines.append(f"and {len(failed) - _FOLDED} more ranks failed after it")
        if stopped:
            lines.append(f"ranks ended because of it: {_ranges(stopped)}")
        return lines


@dataclass(frozen=True, slots=True)
class RemoteReport:
    """A job that failed on several nodes, as one of them sees it.

    ``why`` is the verdict's; ``first`` the first failure of the whole job, if its node told it;
    ``own`` this node's own failure, if it had one.
    """

    name: str
    why: str
    given_class: FailureClass | None
    first: Failure | None
    own: FailureReport | None

    @property
    def failure_class(self) -> FailureClass:
        """What kind of failure the first one of the whole job was."""
        return self.given_class or FailureClass.USER_CODE

    @property
    def elsewhere(self) -> bool:
        """Whether the first failure of the job was not this node's."""
        return self.own is None or self.first != self.own.first

    @property
    def text(self) -> str:
        """The report, to be read by a human."""
        if self.own is not None and not self.elsewhere:
            return self.own.text
        if self.first is None:
            lines = [f"{self.name} failed: {self.why}", ""]
        else:
            lines = [*_story(self.name, self.first), ""]
        if self.own is None:
            return "\n".join([*lines, "no rank of this node failed by itself"])
        own = self.own.first
        lines.append(f"on this node rank {own.rank} (pid {own.pid}) failed: {own.reason}")
        logs = f"logs of this node's ranks: {self.own.log_folder}"
        return "\n".join([*lines, *self.own.aftermath, logs])


class WorkersFailed(ChildFailedError):
    """At least one rank failed and no restart was left. ``report`` has it as a value.

    ``failures`` are torch's records of the failed ranks, by global rank: the first one of the job,
    which may be another node's, and then those of this node.
    """

    def __init__(
        self, report: FailureReport | RemoteReport, failures: Mapping[int, ProcessFailure]
    ) -> None:
        self.report = report
        if isinstance(report, RemoteReport) and report.elsewhere:
            failures = {**_elsewhere(report), **failures}
        # Who looks for the first by torch's times, in whole seconds and of several hosts, is to
        # find the same one.
        first, *others = failures.values()
        first.timestamp = min(one.timestamp for one in (first, *others))
        super().__init__(report.name, dict(failures))

    @property
    def failure_class(self) -> FailureClass:
        """What kind of failure the first one was."""
        return self.report.failure_class

    @property
    def failure(self) -> Failure | None:
        """The first one of the whole job with all that is known of it; None if its node did not
        tell.
        """
        return self.report.first

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
    first = report.first
    others = [one for one in report.others if one.failed and not one.was_ended]
    found = {
        first.rank: _process_failure(
            first.local_rank,
            first.pid,
            first.exit_status,
            first.trace or first.reason,
            error_files.get(first.local_rank),
        )
    }
    for one in others:
        said = one.note.trace if isinstance(one.note, ErrorNote) else ""
        found[one.rank] = _process_failure(
            one.local_rank, one.pid, one.status, said or one.reason, error_files.get(one.local_rank)
        )
    return found


def _process_failure(
    local_rank: int, pid: int, status: int, message: str, error_file: Path | None
) -> ProcessFailure:
    def made(file: str) -> ProcessFailure:
        return ProcessFailure(local_rank=local_rank, pid=pid, exitcode=status, error_file=file)

    try:
        if error_file is not None and error_file.is_file():
            return made(str(error_file))
    except Exception:  # noqa: BLE001, S110 - torch's parser meets a file that was cut off; the message is ours
        pass
    failure = made(_NO_FILE)
    failure.message = message
    # torch's default for all records is one shared dict; without a file, ours says what there is to
    # say.
    failure.error_file_data = {
        "message": {"message": message, "extraInfo": {"timestamp": str(failure.timestamp)}}
    }
    return failure


def _elsewhere(report: RemoteReport) -> dict[int, ProcessFailure]:
    """torch's record of a failure on another node; without a word of it, one that stands for all
    other ranks.
    """
    first = report.first
    if first is None:
        return {-1: _process_failure(-1, 0, 1, report.why, None)}
    return {
        first.rank: _process_failure(
            first.local_rank, first.pid, first.exit_status, first.trace or first.reason, None
        )
    }


def _story(name: str, first: Failure) -> list[str]:
    """Whose failure it was, and all that its rank said."""
    lines = [f"{name} failed: rank {first.rank}: {first.reason}", f"  {first.place}"]
    lines.append(f"  failure class: {first.failure_class}")
    if first.trace:
        lines += ["", *first.trace.splitlines()]
    if first.tail:
        lines += ["", "the last lines of its standard error:"]
        lines += [f"  {line}" for line in first.tail]
    return lines


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    parts: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
