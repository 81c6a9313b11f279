"""Sees to it that ``exit_timeout`` counts only time in which a rank that has returned could end.

Time in which its process was stopped or traced does not count, nor does time in which nobody could
look, since the agent was stopped or the machine was suspended. Both are known as for ranks that
hang: by looks in between.
"""

from __future__ import annotations

from collections.abc import Iterable

from llutil.agent.hang.hang_watch import look_period, time_watched
from llutil.agent.workers.rank import Worker
from llutil.system.process_table import stat_of

__all__ = ["ExitWatch"]


class ExitWatch:
    """Watches the ranks of one node that have returned, and whose processes have not ended.

    ``next_look`` is when ``look`` wants to be called, on ``time.monotonic()``; infinity if never.
    """

    def __init__(self) -> None:
        self.next_look = float("inf")
        self._looked: dict[Worker, float] = {}
        """When each of them was looked at last."""

    def look(self, now: float, returned: Iterable[Worker]) -> None:
        """Look at the ranks that are due, and give them the time that does not count."""
        looked, self._looked = self._looked, {}
        self.next_look = float("inf")
        for worker in returned:
            period = look_period(worker.plan.exit_timeout)
            last = looked.get(worker, now)
            if now >= last + period or worker.is_overdue(now):
                passed = now - last
                stat = stat_of(worker.process.pid)
                held = stat is not None and stat.state in "Tt"
                lost = passed - time_watched(passed, period, held=held)
                if lost > 0:
                    # One more look at least: it may have stood still until just now.
                    worker.give_time(lost, now + period)
                last = now
            self._looked[worker] = last
            self.next_look = min(self.next_look, last + period)
