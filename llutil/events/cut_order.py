"""A word of the page by which a rank has its agent cut the node from its store, for so long.

Only a job with faults uses it; see ``llutil.chaos``. This module may import only the standard
library and ``llutil.events.futex``.
"""

from __future__ import annotations

from llutil.events import futex

__all__ = ["CutOrder"]


class CutOrder:
    """The order: 0, or the length of the cut in milliseconds."""

    def __init__(self, word: memoryview) -> None:
        self._word = word

    def give(self, seconds: float) -> None:
        """Order it."""
        self._word[0] = max(1, round(1000 * seconds))
        futex.wake(self._word)

    def take(self, deadline: float) -> float:
        """Wait for an order until ``deadline`` (``time.monotonic()``); its seconds, or 0."""
        if not futex.wait(self._word, 0, deadline):
            return 0.0
        milliseconds, self._word[0] = self._word[0], 0
        return milliseconds / 1000
