"""How far a job is, shown to whoever watches it: a live bar on a terminal, else a line every few
seconds.

Both displays say the same in the same words. A display is only drawn from the thread that relays
the job's events; it starts no thread of its own. rich, which Airflow installs, is imported when a
bar is drawn.
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

_LISTED_RANKS = 4


class ProgressDisplay(Protocol):
    """Shows progress. ``hide`` makes room for a log line; ``close`` leaves the last state
    behind.
    """

    def show(self, ranks: Steps) -> None:
        """These are the steps now."""

    def hide(self) -> None:
        """Something else is about to be printed."""

    def close(self) -> None:
        """The job has ended."""


def summary(ranks: Steps) -> str:
    """One line: each rank's step for a few ranks; the slowest and the fastest of many."""
    if len(ranks) > _LISTED_RANKS:
        in_order = sorted(ranks, key=lambda rank: (ranks[rank][0], rank))
        slowest, fastest = (_one(rank, *ranks[rank]) for rank in (in_order[0], in_order[-1]))
        return f"progress of {len(ranks)} ranks: slowest {slowest}, fastest {fastest}"
    return "progress: " + ", ".join(_one(rank, *steps) for rank, steps in sorted(ranks.items()))


class ProgressLines:
    """A log line now and then, at most one every ``every`` seconds, and one at the end.

    :param write: takes a line for the log.
    :param clock: seconds that only grow.
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
        """Write it if it says something new and the last line is old enough, else keep it."""
        line = summary(ranks)
        self._unwritten = line if line != self._written else None
        if self._written_at is None or self._clock() - self._written_at >= self._every:
            self.close()

    def hide(self) -> None:
        """Nothing to do: a line is never in the way."""

    def close(self) -> None:
        """Write what has been kept back, if anything."""
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
        """Draw these steps."""
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
        """Wipe the bars away until the next ``show``."""
        if self._bars is not None:
            self._bars.stop()
            # Shown again, these would first wipe the lines that they think are still theirs.
            self._bars = None

    def close(self) -> None:
        """Wipe the bars away and write the last state as a line."""
        self.hide()
        if self._last:
            self._write(summary(self._last))
            self._last = {}


def display_for_this_process(log: logging.Logger) -> ProgressDisplay:
    """A bar where a person looks at a terminal (``dag.test()``), lines in a task's log.

    A task run by an executor has its stderr captured, so it is never taken for a terminal.
    """

    if not sys.stderr.isatty():
        return lines_in(log)
    return ProgressBar(_writer(log))


def lines_in(log: logging.Logger) -> ProgressDisplay:
    """Lines in ``log``, also on a terminal: several bars at once would wipe each other away."""
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
        auto_refresh=False,  # that would be a thread
        transient=True,  # so that stopping wipes the bars away
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _one(rank: int, step: int, total: int) -> str:
    return (
        f"rank {rank} {step}/{total} ({100 * step // total} %)" if total else f"rank {rank} {step}"
    )
