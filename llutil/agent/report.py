"""What is said when a rank fails: one screen, the first failure in full, the others in a line.

``WorkersFailed`` is torch's ``ChildFailedError``, so that ``except`` clauses and ``@record`` keep working, with
a text that names the root cause. Deciding which failure was first is ``first_failure``'s; nothing here acts.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from llutil.agent.outcome import ErrorNote
from llutil.agent.workers import Ended
from llutil.errors import FailureClass

__all__ = [
    "FailureReport",
    "RemoteReport",
    "WorkersFailed",
    "first_failure",
    "process_failures",
]

_TRACE_LINES = 40  # of a traceback; more says less
_TAIL_LINES = 12
_LONGEST_LINE = 500  # characters


def first_failure(ended: Sequence[Ended]) -> Ended:
    """The failed rank that failed first on this host's clock; ended ranks that did not fail do not count."""
    return min((one for one in ended if one.failed), key=lambda one: one.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """A failed round as a value. ``restart`` of ``max_restarts`` had been used when it failed."""

    name: str
    restart: int
    max_restarts: int
    first: Ended
    others: tuple[Ended, ...]
    log_folder: str

    @property
    def failure_class(self) -> FailureClass:
        """What kind of failure the first one was."""
        match self.first.note:
            case ErrorNote(bad_configuration=True):
                return FailureClass.BAD_CONFIGURATION
            case _:
                return FailureClass.USER_CODE

    @property
    def fatal(self) -> bool:
        """Whether starting again cannot help."""
        return any(
            isinstance(o.note, ErrorNote) and o.note.fatal for o in (self.first, *self.others)
        )

    @property
    def text(self) -> str:
        """The report, to be read by a human."""
        first = self.first
        lines = [
            f"{self.name} failed: rank {first.rank}: {first.reason}",
            f"  rank {first.rank} (local rank {first.local_rank}) on {socket.gethostname()}, pid {first.pid}, "
            f"after {self.restart} of {self.max_restarts} restarts",
        ]
        match first.note:
            case ErrorNote(trace=trace) if trace:
                lines += ["", *_screen(trace)]
            case ErrorNote(text=text):
                if "\n" in text:
                    lines += ["", *_screen(text)]
            case _:
                if first.tail:
                    lines += ["", "the last lines of its standard error:"]
                lines += [f"  {_short(line)}" for line in first.tail[-_TAIL_LINES:]]
        failed = [one for one in self.others if one.failed and not one.was_ended]
        stopped = [one.rank for one in self.others if one.was_ended]
        lines.append("")
        lines += [f"rank {one.rank} failed after it: {one.reason}" for one in failed[:4]]
        if len(failed) > 4:
            lines.append(f"and {len(failed) - 4} more ranks failed after it")
        if stopped:
            lines.append(f"ranks ended because of it: {_ranges(stopped)}")
        lines.append(f"logs of every rank: {self.log_folder}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class RemoteReport:
    """A job that failed on several nodes, as one of them sees it: ``why`` is the verdict's, ``own`` its own failure."""

    name: str
    why: str
    given_class: FailureClass | None
    own: FailureReport | None

    @property
    def failure_class(self) -> FailureClass:
        """What kind of failure the first one of the whole job was."""
        return self.given_class or FailureClass.USER_CODE

    @property
    def text(self) -> str:
        """The report, to be read by a human."""
        verdict = f"{self.name} failed: {self.why}"
        if self.own is None:
            return f"{verdict}\nno rank of this node failed by itself; see the log of the node that did"
        return f"{verdict}\n\non this node: {self.own.text}"


class WorkersFailed(ChildFailedError):
    """At least one rank failed and no restart was left. ``report`` has it as a value."""

    def __init__(
        self, report: FailureReport | RemoteReport, failures: dict[int, ProcessFailure]
    ) -> None:
        self.report = report
        super().__init__(report.name, failures or _ELSEWHERE)

    @property
    def failure_class(self) -> FailureClass:
        """What kind of failure the first one was."""
        return self.report.failure_class

    def format_msg(self, boarder_delim: str = "=", section_delim: str = "-") -> str:
        """The report's text, in place of torch's frame around "N/A"; the parameters are torch's and unused."""
        del boarder_delim, section_delim
        return self.report.text


def process_failures(
    report: FailureReport, error_files: dict[int, Path]
) -> dict[int, ProcessFailure]:
    """torch's own record of the failed ranks, the first one first."""
    others = (one for one in report.others if one.failed and not one.was_ended)
    failed = [report.first, *others]
    return {
        one.rank: ProcessFailure(
            local_rank=one.local_rank,
            pid=one.pid,
            exitcode=one.status,
            error_file=str(error_files.get(one.local_rank, "<N/A>")),
        )
        for one in failed
    }


_ELSEWHERE = {
    -1: ProcessFailure(local_rank=-1, pid=0, exitcode=1, error_file="<N/A>"),
}
"""torch's error wants at least one failed rank; this stands for ranks of other nodes."""


def _screen(text: str) -> list[str]:
    """The lines of ``text``, without the middle if they are many, and without the ends of the overlong."""
    lines = text.rstrip().splitlines()
    if len(lines) > _TRACE_LINES:
        half = _TRACE_LINES // 2
        cut = len(lines) - 2 * half
        lines = [*lines[:half], f"  ... {cut} lines left out ...", *lines[-half:]]
    return [_short(line) for line in lines]


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    parts: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
