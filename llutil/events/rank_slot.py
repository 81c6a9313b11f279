"""One local rank's part of the event page: its progress, and the time of its last report.

A slot is a view of eight words of 8 bytes in shared memory. So a report is three assignments. It
takes no lock, and no system call but the clock's. This module may import only the standard library.
"""

from __future__ import annotations

import enum
import time

__all__ = ["AHEAD", "HEARTBEAT", "STEP", "TOTAL", "Doing", "Slot"]

STEP, TOTAL, HEARTBEAT, AHEAD, GATE, DOING, SAVED, METRICS = range(8)
"""The index of each word in a slot."""


class Doing(enum.IntEnum):
    """What a rank does now, as far as the page knows."""

    STEPS = 0
    CHECKPOINT = 1
    HELD = 2
    DEBUGGED = 3


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
    report, in nanoseconds of ``time.monotonic_ns()``, and 0 if there was none. ``ahead`` is one
    more than the step that the rank has begun, and 0 if it never called ``worker.step``. ``gate``
    is the newest gate that it is done with, ``doing`` a ``Doing``, ``saved`` one more than the step
    of its last committed checkpoint, ``metrics`` how many metrics it has. Assigning a number
    below 0 or above 2**64 - 1 raises ``ValueError``; one that is not an integer, ``TypeError``. A
    slot stays usable after ``Events.close``, although perhaps no other process reads it then.
    """

    __slots__ = ("local_rank", "words")

    step = _Word(STEP)
    total = _Word(TOTAL)
    heartbeat = _Word(HEARTBEAT)
    ahead = _Word(AHEAD)
    gate = _Word(GATE)
    doing = _Word(DOING)
    saved = _Word(SAVED)
    metrics = _Word(METRICS)

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
