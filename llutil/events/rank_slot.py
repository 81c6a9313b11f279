"""One local rank's part of the event page: its progress, and the time of its last report.

A slot is a view of three words of 8 bytes in shared memory. So a report is three assignments. It
takes no lock, and no system call but the clock's. This module may import only the standard library.
"""

from __future__ import annotations

import time

__all__ = ["HEARTBEAT", "STEP", "TOTAL", "Slot"]

STEP, TOTAL, HEARTBEAT = range(3)
"""The index of each word in a slot."""


class _Word:
    """An attribute of ``Slot`` that reads and writes one of its words."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __get__(self, slot: Slot, owner: type[Slot]) -> int:
        return slot.words[self._index]

    def __set__(self, slot: Slot, value: int) -> None:
        slot.words[self._index] = value


class Slot:
    """What one local rank tells its node.

    The user's code decides what ``step`` and ``total`` count. ``heartbeat`` is the time of the last
    report, in nanoseconds of ``time.monotonic_ns()``, and 0 if there was none. Assigning a number
    below 0 or above 2**64 - 1 raises ``ValueError``; one that is not an integer, ``TypeError``. A
    slot stays usable after ``Events.close``, although perhaps no other process reads it then.
    """

    __slots__ = ("local_rank", "words")

    step = _Word(STEP)
    total = _Word(TOTAL)
    heartbeat = _Word(HEARTBEAT)

    def __init__(self, local_rank: int, words: memoryview) -> None:
        self.local_rank = local_rank
        self.words = words

    def report(self, step: int, total: int = 0) -> None:
        """Write the progress, and the present time as heartbeat.

        With ``total`` 0 the last total stays; it is 0 until one is known.
        """
        words = self.words
        try:
            if total:
                words[TOTAL] = total
            words[STEP] = step
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"step is {step!r} and total is {total!r}; wanted whole numbers from 0 to 2**64 - 1"
            ) from None
        words[HEARTBEAT] = time.monotonic_ns()
