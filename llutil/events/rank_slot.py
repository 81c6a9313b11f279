"""One local rank's part of the event page: how far it has come, and when it last said so.

A slot is a view of four words of 8 bytes in shared memory, so that a report is three assignments:
no lock, no system call but the clock's. This module may import nothing but the standard library.
"""

from __future__ import annotations

import time
from enum import IntEnum

__all__ = ["HEARTBEAT", "STATE", "STEP", "TOTAL", "Slot", "SlotState"]

STEP, TOTAL, HEARTBEAT, STATE = range(4)
"""Which word of a slot is which."""


class SlotState(IntEnum):
    """How far a local rank has come in the present round; written by whoever sees it happen."""

    EMPTY = 0
    STARTED = 1
    RUNNING = 2
    FINISHED = 3
    FAILED = 4


class _Word:
    """A word of a slot, as an attribute."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __get__(self, slot: Slot, owner: type[Slot]) -> int:
        return slot.words[self._index]

    def __set__(self, slot: Slot, value: int) -> None:
        slot.words[self._index] = value


class Slot:
    """What one local rank tells its node.

    ``step`` and ``total`` count what the user counts, ``heartbeat`` is the time of the last report
    in nanoseconds of ``time.monotonic_ns()``, 0 if there was none. Setting one of them raises
    ``ValueError`` for a number below 0 or above 2**64 - 1, ``TypeError`` for one that is not whole.
    A slot stays usable after ``Events.close``, but nobody may be looking.
    """

    __slots__ = ("local_rank", "words")

    step = _Word(STEP)
    total = _Word(TOTAL)
    heartbeat = _Word(HEARTBEAT)

    def __init__(self, local_rank: int, words: memoryview) -> None:
        self.local_rank = local_rank
        self.words = words

    def report(self, step: int, total: int = 0) -> None:
        """Write progress and a heartbeat; ``total`` 0 leaves the last total, which is 0 while
        unknown.
        """
        words = self.words
        if total:
            words[TOTAL] = total
        words[STEP] = step
        words[HEARTBEAT] = time.monotonic_ns()

    @property
    def state(self) -> SlotState:
        """How far the rank has come in this round."""
        return SlotState(self.words[STATE])

    @state.setter
    def state(self, state: SlotState) -> None:
        self.words[STATE] = state
