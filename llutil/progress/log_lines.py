"""Progress in a log: a line now and then.

This module may import only the standard library and its own room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from llutil.progress.words import Steps, metrics_text, speed, summary

__all__ = ["ProgressLines"]

# Seconds between two log lines: at first the shortest time, then this share of the time since the
# first line, up to the longest. An hour has 200 lines, a week 600.
_SHORTEST, _SHARE, _LONGEST = 5.0, 0.02, 1800.0


class ProgressLines:
    """Writes a log line now and then, the more rarely the longer the job runs, and one at the end.

    A line also has the rate of the slowest rank since the line before, the time that is left at
    that rate, and the metrics.

    :param write: takes a line for the log.
    :param clock: gives seconds that only grow.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._times_rarer = 1
        self._began: float | None = None
        self._next = 0.0
        self._written: tuple[float, Steps] | None = None
        """When the last line was written, and the steps in it."""
        self._unwritten: tuple[Steps, Mapping[str, float]] | None = None

    def begin(self, nodes: int) -> None:
        """A round has begun; lines are ``nodes`` times as rare as those of one node alone."""
        self._times_rarer = nodes

    def show(self, ranks: Steps, metrics: Mapping[str, float]) -> None:
        """Write a line if it is new and the last one is old enough; else keep it for later."""
        ranks = dict(ranks)
        is_new = self._written is None or ranks != self._written[1]
        self._unwritten = (ranks, dict(metrics)) if is_new else None
        if self._began is None:
            self._began = self._clock()
        if self._clock() >= self._next:
            self.close()

    def hide(self) -> None:
        """Do nothing: a line is never in the way."""

    def close(self) -> None:
        """Write the line that was kept for later, if any."""
        unwritten, self._unwritten = self._unwritten, None
        if unwritten is None or self._began is None:
            return
        ranks, metrics = unwritten
        now = self._clock()
        rate = speed(ranks, now, *self._written) if self._written else ""
        self._written = (now, ranks)
        usual = max(_SHORTEST, _SHARE * (now - self._began))
        self._next = now + min(usual * self._times_rarer, _LONGEST)
        self._write(f"{summary(ranks)}{rate}{metrics_text(metrics)}")
