"""A flag of the event page: one bit that every process of a node sees, and can wait for.

This module may import only ``llutil.events.futex``.
"""

from __future__ import annotations

from llutil.events import futex

__all__ = ["Flag"]


class Flag:
    """One bit that every process of the page sees.

    ``wait`` looks at the present value only: it may miss a flag that is raised and lowered again at
    once. Each method raises ``ValueError`` once the page is closed.
    """

    __slots__ = ("_word",)

    def __init__(self, word: memoryview) -> None:
        self._word = word

    def set(self) -> None:
        """Raise the flag, and wake every process and thread that waits for it."""
        self._word[0] = 1
        futex.wake(self._word)

    def clear(self) -> None:
        """Lower the flag."""
        self._word[0] = 0

    def is_set(self) -> bool:
        """Whether the flag is raised."""
        return self._word[0] != 0

    def wait(self, deadline: float) -> bool:
        """Sleep until the flag is raised, or until ``deadline`` (seconds on ``time.monotonic()``).

        Returns whether it is raised. Other threads and signal handlers run meanwhile.
        """
        return futex.wait(self._word, 0, deadline)
