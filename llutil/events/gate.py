"""Where ranks of a node are held, so that all ranks of a job do something at the same step.

An agent *raises* gates, numbered 1, 2, ... in a round, and *opens* each one: with a step and what
ranks do once they have finished it, or with nothing. While the newest gate is raised and not yet
open, a rank that finishes a step waits. ``llutil.events.steps`` is the ranks' side. Words of 8
bytes, from ``FIRST`` on::

    0-7   decisions, each in one word: of gate n at n % 8      11  until when a rank waits
    8     the newest gate that is raised                       12  the agent's pid
    9     the newest gate that is open                         13  its start time
    10    pauses of smaller gates than this are over

A rank writes how far it is and then reads word 8. An agent writes word 8 and then reads how far the
ranks are, with a barrier between, which costs the ranks nothing. So at least one sees the other.
Every change also counts up a word of 4 bytes that ranks sleep on.

This module may import only the standard library and its own room.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from llutil.events import futex
from llutil.events.memory_barrier import wait_for_all_processors
from llutil.events.page_file import start_time
from llutil.events.rank_slot import Slot

__all__ = ["LONGEST_STEP", "RAISED", "WORDS", "Decision", "Gate", "Kinds", "Raised"]

_RING = 8
RAISED, _OPENED, _RESUMED, _LATEST, _PID, _STARTED = range(_RING, _RING + 6)
"""The index of the word with the number of the newest gate that is raised; 0 without one."""
WORDS = _RING + 6
"""The number of words of a gate."""
LONGEST_STEP = 2**48 - 2
"""The greatest step that a decision has room for."""
# Seconds that ranks wait longer than the agent is ready to open, so that they never give a gate up
# which it still opens.
_MARGIN = 1.0
# Seconds between two looks of a rank that waits at whether its agent lives.
_LONGEST_SLEEP = 1.0


class Kinds(enum.IntFlag):
    """What ranks do at a step."""

    NOTHING = 0
    CHECKPOINT = 1
    STOP = 2
    PAUSE = 4


@dataclass(frozen=True, slots=True)
class Decision:
    """What ranks do once they have finished ``step``."""

    step: int
    kinds: Kinds


@dataclass(frozen=True, slots=True)
class Raised:
    """What an agent saw when it raised a gate: for each local rank that has reported, the step that
    it had begun, or None if it never called ``worker.step``. ``refusal``: why it is not raised.
    """

    begun: Mapping[int, int | None]
    refusal: str = ""

    @property
    def furthest(self) -> int | None:
        """The greatest step that was begun; None if no rank ever called ``worker.step``."""
        return max((step for step in self.begun.values() if step is not None), default=None)


class Gate:
    """The gates of a page. One process, the agent, raises and opens them; ranks only read.

    ``words`` is the view of them, ``turn`` the word that ranks sleep on, and ``slots`` gives the
    slots of the ranks that have reported.
    """

    def __init__(
        self, words: memoryview, turn: memoryview, slots: Callable[[], list[Slot]]
    ) -> None:
        self.words, self.turn, self._slots = words, turn, slots

    # The agent's side.

    def raise_gate(self, number: int, latest: float, ended: Collection[int] = ()) -> Raised:
        """Hold every rank that finishes a step from now on, until ``open_gate(number, ...)``.

        :param number: one more than that of the gate before.
        :param latest: until when this gate may be opened, in seconds on ``time.monotonic()``. Soon
            after it, ranks go on by themselves and do nothing for this gate.
        """
        words = self.words
        if words[_OPENED] != words[RAISED] or number != words[RAISED] + 1:
            raise ValueError(
                f"gate {number} cannot be raised: gate {words[RAISED]} is the newest one that "
                f"was raised, and gate {words[_OPENED]} the newest one that was opened"
            )
        behind = [
            slot.local_rank
            for slot in self._slots()
            if slot.ahead and number - slot.gate > _RING and slot.local_rank not in ended
        ]
        if behind:
            return Raised({}, f"local ranks {behind} have not yet come to what was asked before")
        words[_PID], words[_STARTED] = os.getpid(), start_time(os.getpid()) or 0
        words[_LATEST] = int(latest * 1e9)
        words[RAISED] = number
        wait_for_all_processors()
        return Raised(
            {slot.local_rank: slot.ahead - 1 if slot.ahead else None for slot in self._slots()}
        )

    def open_gate(self, number: int, step: int | None, kinds: Kinds) -> bool:
        """Let ranks go on up to ``step``, and there do ``kinds``; without kinds, just let them go.

        Returns whether ranks will do so. They will not if the time to open it is over. What is open
        already stays as it is.
        """
        words = self.words
        if number <= words[_OPENED]:
            return False
        in_time = time.monotonic_ns() <= words[_LATEST]
        told = kinds if in_time and step is not None else Kinds.NOTHING
        # Whoever sees that it is open, and not yet this word, finds another number in it.
        words[number % _RING] = _pack(number, step or 0, told)
        words[_OPENED] = number
        self._wake()
        return in_time

    def end_pauses(self, number: int) -> None:
        """Let ranks go on that were paused by a gate before ``number``."""
        if number > self.words[_RESUMED]:
            self.words[_RESUMED] = number
            self._wake()

    def reset(self) -> None:
        """Forget all gates. The agent calls it before it starts the workers of a round."""
        for index in range(WORDS):
            self.words[index] = 0
        self._wake()

    def _wake(self) -> None:
        self.turn[0] = (self.turn[0] + 1) % 2**32
        futex.wake(self.turn)

    # The ranks' side.

    def decision(self, number: int) -> Decision | None:
        """What was decided at that gate; None if it is not open, or was so too long ago."""
        if number > self.words[_OPENED]:
            return None
        return _unpack(self.words[number % _RING], number)

    def oldest(self) -> int:
        """The number of the oldest gate whose decision is still there."""
        return max(1, int(self.words[RAISED]) - _RING + 1)

    def ends_pause(self, number: int) -> bool:
        """Whether a pause that gate ``number`` brought is over."""
        return bool(number < self.words[_RESUMED])

    def wait(self, turn: int, *, bounded: bool) -> str:
        """Sleep until something changes after ``turn``, but for about a second at most.

        Returns why nothing will come any more; "" if something still may. Only a ``bounded`` wait
        is over by its time.
        """
        words = self.words
        futex.wait(self.turn, turn, time.monotonic() + _LONGEST_SLEEP)
        if bounded and time.monotonic_ns() > words[_LATEST] + _MARGIN * 1e9:
            return "the agent did not open it in time"
        if words[_PID] and start_time(words[_PID]) != words[_STARTED]:
            return "the agent has ended"
        return ""


def _pack(number: int, step: int, kinds: Kinds) -> int:
    return (number % 256) << 56 | int(kinds) << 48 | step


def _unpack(word: int, number: int) -> Decision | None:
    if word >> 56 != number % 256:
        return None
    return Decision(word & (2**48 - 1), Kinds(word >> 48 & 0xFF))
