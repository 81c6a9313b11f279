"""Shows the progress of a job: a live bar on a terminal, else a log line every few seconds.

Both displays use the same words. A display draws only in the thread that relays the job's events;
it starts no thread of its own. rich, which Airflow installs, is imported when a bar is drawn.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = [
    "ProgressBar",
    "ProgressDisplay",
    "ProgressLines",
    "display_for_this_process",
    "lines_in",
    "summary",
]

Steps = Mapping[int, tuple[int, int]]
"""``{rank: (step, total)}``; a total of 0 means that it is not known."""

# Up to so many ranks are listed one by one.
_LISTED_RANKS = 4


class ProgressDisplay(Protocol):
    """Shows progress; ``hide`` makes room for a log line, ``close`` leaves the last state."""

    def show(self, ranks: Steps) -> None:
        """Show ``ranks``, the present steps."""

    def hide(self) -> None:
        """Make room: another line is about to be printed."""

    def close(self) -> None:
        """Show the last state: the job has ended."""


def summary(ranks: Steps) -> str:
    """One line: the step of each rank if there are few; else of the slowest and the fastest."""
    if len(ranks) > _LISTED_RANKS:
        in_order = sorted(ranks, key=lambda rank: (ranks[rank][0], rank))
        slowest, fastest = (_one(rank, *ranks[rank]) for rank in (in_order[0], in_order[-1]))
        return f"progress of {len(ranks)} ranks: slowest {slowest}, fastest {fastest}"
    return "progress: " + ", ".join(_one(rank, *steps) for rank, steps in sorted(ranks.items()))


class ProgressLines:
    """Writes a log line at most every ``every`` seconds, and one at the end.

    :param write: takes a line for the log.
    :param clock: gives seconds that only grow.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._every = every
        self._clock = clock
        self._written_at: float | None = None
        self._written: str | None = None
        self._unwritten: str | None = None

    def show(self, ranks: Steps) -> None:
        """Write a line if it is new and the last one is old enough; else keep it for later."""
        line = summary(ranks)
        self._unwritten = line if line != self._written else None
        if self._written_at is None or self._clock() - self._written_at >= self._every:
            self.close()

    def hide(self) -> None:
        """Do nothing: a line is never in the way."""

    def close(self) -> None:
        """Write the line that was kept for later, if any."""
        if self._unwritten is not None:
            self._written, self._unwritten = self._unwritten, None
            self._written_at = self._clock()
            self._write(self._written)


class ProgressBar:
    """One bar a rank on stderr, redrawn in place.

    :param write: takes the line that remains when the bars are gone.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last: dict[int, tuple[int, int]] = {}
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}

    def show(self, ranks: Steps) -> None:
        """Draw ``ranks``, the present steps."""
        self._last.update(ranks)
        if self._bars is None:
            self._bars, self._tasks = _bars(), {}
            self._bars.start()
        for rank, (step, total) in sorted(self._last.items()):
            if rank not in self._tasks:
                self._tasks[rank] = self._bars.add_task(f"rank {rank}", total=None)
            self._bars.update(self._tasks[rank], completed=step, total=total or None)
        self._bars.refresh()

    def hide(self) -> None:
        """Remove the bars until the next ``show``."""
        if self._bars is not None:
            self._bars.stop()
            # Started again, these bars would overwrite the lines below them. New bars do not.
            self._bars = None

    def close(self) -> None:
        """Remove the bars, and write the last state as a line."""
        self.hide()
        if self._last:
            self._write(summary(self._last))
            self._last = {}


def display_for_this_process(log: logging.Logger) -> ProgressDisplay:
    """A bar where a person looks at a terminal (``dag.test()``), lines in a task's log.

    The stderr of a task that an executor runs is captured, so it is never taken for a terminal.
    """

    if not sys.stderr.isatty():
        return lines_in(log)
    return ProgressBar(_writer(log))


def lines_in(log: logging.Logger) -> ProgressDisplay:
    """Lines in ``log``, also on a terminal: several bars at once would overwrite each other."""
    return ProgressLines(_writer(log))


def _writer(log: logging.Logger) -> Callable[[str], None]:
    def write(line: str) -> None:
        log.info(line)

    return write


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        auto_refresh=False,  # it would start a thread
        transient=True,  # so that stop() removes the bars
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _one(rank: int, step: int, total: int) -> str:
    if not total:
        return f"rank {rank} {step}"
    return f"rank {rank} {step}/{total} ({100 * step // total} %)"
