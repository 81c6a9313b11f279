"""When a task looks again whether its agent, which has no workers, still waits for good reason."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["IdleChecks"]


class IdleChecks:
    """Is due each time after ``period`` seconds without workers, or up to half as much more.

    Each wait is drawn. Else nodes whose workers ended together, as those of a job do, would all ask
    Airflow at the same moments. ``draw`` returns a random number from 0 to 1.
    """

    def __init__(self, period: float, draw: Callable[[], float]) -> None:
        self._period = period
        self._draw = draw
        self._last = float("-inf")
        self._wait = self._drawn()

    def due(self, now: float, idle_since: float) -> bool:
        """Whether it is time, on a node that has been without workers since ``idle_since``."""
        return now > max(idle_since, self._last) + self._wait

    def done(self, now: float) -> None:
        """Take note that one was made."""
        self._last = now
        self._wait = self._drawn()

    def _drawn(self) -> float:
        return self._period * (1 + self._draw() / 2)
