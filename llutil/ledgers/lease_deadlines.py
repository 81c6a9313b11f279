"""``LeaseDeadlines``: when the leases of a ``MemoryStore`` are over.

The clock is an argument. A renewal costs no search: the heap keeps a lease's old deadline until
that one is the first, and then takes the new one. This module may import the standard library, and
nothing else.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator

__all__ = ["LeaseDeadlines"]

# Entries of leases that are over may fill as much of the heap as the others, and these.
_FEW = 16


class LeaseDeadlines:
    """The deadlines of leases, by their names."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stopped = 0.0
        """Seconds that do not count, in all."""
        self._deadlines: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        """One entry for each lease, and at times for those that were discarded."""

    def _now(self) -> float:
        return self._clock() - self._stopped

    def extend(self, seconds: float) -> None:
        """Give all leases so many seconds more."""
        self._stopped += seconds

    def set(self, lease: str, ttl: float) -> None:
        """A lease is over in ``ttl`` seconds, but not before the deadline that it has."""
        deadline = self._now() + ttl
        if lease not in self._deadlines:
            heapq.heappush(self._heap, (deadline, lease))
        self._deadlines[lease] = max(deadline, self._deadlines.get(lease, deadline))

    def discard(self, lease: str) -> None:
        """Forget a lease, if it is known."""
        self._deadlines.pop(lease, None)
        if len(self._heap) > 2 * len(self._deadlines) + _FEW:
            self._heap = [(deadline, one) for one, deadline in self._deadlines.items()]
            heapq.heapify(self._heap)

    def take_overdue(self) -> Iterator[str]:
        """Forget the leases that are over, one by one, and return their names."""
        now = self._now()
        while self._first() <= now:
            _, lease = heapq.heappop(self._heap)
            del self._deadlines[lease]
            yield lease

    def seconds_left(self) -> float:
        """Seconds until the first deadline; infinite if there is none."""
        return max(0.0, self._first() - self._now())

    def _first(self) -> float:
        """The first deadline. The heap's first entry is up to date then."""
        while self._heap:
            known, lease = self._heap[0]
            deadline = self._deadlines.get(lease)
            if deadline == known:
                return known
            if deadline is None:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (deadline, lease))
        return math.inf
