"""Shows the progress of a job: a live bar on a terminal, else a log line now and then.

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

# Seconds between two log lines: at first the shortest time, then this share of the time since the
# first line, up to the longest. An hour has 200 lines, a week 600.
_SHORTEST, _SHARE, _LONGEST = 5.0, 0.02, 1800.0


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
    """Writes a log line now and then, the more rarely the longer the job runs, and one at the end.

    A line also has the rate of the slowest rank since the line before, and the time that is left at
    that rate.

    :param write: takes a line for the log.
    :param clock: gives seconds that only grow.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._began: float | None = None
        self._next = 0.0
        self._written: tuple[float, Steps] | None = None
        """When the last line was written, and the steps in it."""
        self._unwritten: Steps | None = None

    def show(self, ranks: Steps) -> None:
        """Write a line if it is new and the last one is old enough; else keep it for later."""
        ranks = dict(ranks)
        self._unwritten = ranks if self._written is None or ranks != self._written[1] else None
        if self._began is None:
            self._began = self._clock()
        if self._clock() >= self._next:
            self.close()

    def hide(self) -> None:
        """Do nothing: a line is never in the way."""

    def close(self) -> None:
        """Write the line that was kept for later, if any."""
        ranks, self._unwritten = self._unwritten, None
        if ranks is None or self._began is None:
            return
        now = self._clock()
        speed = _speed(ranks, now, *self._written) if self._written else ""
        self._written = (now, ranks)
        self._next = now + min(max(_SHORTEST, _SHARE * (now - self._began)), _LONGEST)
        self._write(f"{summary(ranks)}{speed}")


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
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        auto_refresh=False,  # it would start a thread
        transient=True,  # so that stop() removes the bars
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _speed(ranks: Steps, now: float, before: float, steps: Steps) -> str:
    """The rate of the slowest rank since ``before``, when it had made ``steps``, and the time left;
    empty if that is not known, as after a restart.
    """
    slowest = min(ranks, key=lambda rank: (ranks[rank][0], rank))
    step, total = ranks[slowest]
    made = step - steps.get(slowest, (step, 0))[0]
    if made <= 0 or now <= before:
        return ""
    rate = made / (now - before)
    text = f"; {rate:.3g} steps/s" if rate >= 1 else f"; {1 / rate:.3g} s a step"
    return f"{text}, {_duration((total - step) / rate)} left" if total > step else text


def _duration(seconds: float) -> str:
    """``seconds`` in the two largest units that are not zero, as ``2 h 5 min``."""
    rest = max(1, round(seconds))
    parts: list[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
    return " ".join(filter(None, parts[:2]))


def _one(rank: int, step: int, total: int) -> str:
    if not total:
        return f"rank {rank} {step}"
    return f"rank {rank} {step}/{total} ({100 * step // total} %)"
