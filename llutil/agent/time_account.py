"""Where the time of a job went on this node: steps that counted, steps done again, and the rest.

It looks at the page a few times a second, and gives the time since the last look to what the ranks
did then. So each figure is right within a second or two for each round. This module may import only
the standard library, ``llutil.events`` and ``llutil.progress``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from enum import Enum

from llutil.events.rank_slot import Doing, Slot
from llutil.progress.words import duration

__all__ = ["TimeAccount"]

# Seconds between two looks.
_PERIOD = 0.25
# Marks of the way that are kept at most; then every second one goes, and the next are rarer.
_MARKS = 512


class _Spent(Enum):
    """What time went into, in the order in which it is told."""

    TRAINS = "training"
    AGAIN = "steps done again"
    STARTS = "starting"
    SAVES = "saving"
    WAITS = "pauses"


class TimeAccount:
    """The account of one agent, from its making on.

    Ranks *train* from their first report of a round on; before that they *start*. Where a round
    begins before the step at which another one ended, the time of the steps between was lost.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._looked = clock()
        self._spent = dict.fromkeys(_Spent, 0.0)
        self._now = _Spent.STARTS
        self._first_start = 0.0
        """Seconds until a rank reported for the first time."""
        self._rounds = 0
        self._has_steps = False
        self._marks: list[tuple[float, int]] = []
        """Seconds of training and the slowest rank's step, as often as ``_between`` says."""
        self._between = 0.0

    def begin_round(self) -> None:
        """The ranks of a round were started."""
        self._spend(_Spent.STARTS)
        self._rounds += 1

    def end_round(self) -> None:
        """They are about to be ended, or have ended."""
        self._spend(_Spent.STARTS)

    def look(self, slots: Collection[Slot]) -> None:
        """Look at the ranks of the round, if that is due."""
        if self._clock() < self._looked + _PERIOD:
            return
        reported = [slot for slot in slots if slot.heartbeat]
        if not reported:
            self._spend(self._now)
            return
        doing = {slot.doing for slot in reported}
        if doing & {Doing.HELD, Doing.DEBUGGED}:
            self._spend(_Spent.WAITS)
        elif Doing.CHECKPOINT in doing:
            self._spend(_Spent.SAVES)
        else:
            self._spend(_Spent.TRAINS)
        self._mark(min(slot.step for slot in reported))

    def end(self) -> None:
        """The job is over."""
        self._spend(_Spent.STARTS)

    @property
    def seconds(self) -> float:
        """The time that is accounted for."""
        return self._looked - self._began

    @property
    def restarts(self) -> int:
        """The rounds after the first one."""
        return max(0, self._rounds - 1)

    @property
    def training_share(self) -> float | None:
        """The share of the time in steps that counted, 0 to 1; None if no rank reported a step."""
        whole = self.seconds
        return self._spent[_Spent.TRAINS] / whole if self._has_steps and whole else None

    @property
    def told(self) -> str:
        """All of it in a line for people."""
        text, restarts = duration(self.seconds), self.restarts
        named = f"{restarts} restart" + ("s" if restarts > 1 else "")
        share = self.training_share
        if share is None:
            return f"{text}, {named}" if restarts > 0 else text
        text += f", {100 * share:.0f} % training"
        if restarts > 0:
            cost = self._spent[_Spent.STARTS] - self._first_start + self._spent[_Spent.AGAIN]
            text += f", {named} cost {duration(cost)}"
        rest = [kind for kind in _Spent if kind is not _Spent.TRAINS and self._spent[kind] >= 1]
        parts = ", ".join(f"{kind.value} {duration(self._spent[kind])}" for kind in rest)
        return f"{text} ({parts})" if parts else text

    def _spend(self, then: _Spent) -> None:
        """What was done until now; ``then`` is what is done from now on."""
        now = self._clock()
        self._spent[self._now] += now - self._looked
        if not self._has_steps:
            self._first_start = self._spent[_Spent.STARTS]
        self._looked, self._now = now, then

    def _mark(self, step: int) -> None:
        self._has_steps = True
        trained = self._spent[_Spent.TRAINS]
        if self._marks and self._marks[-1][1] > step:
            self._marks = [mark for mark in self._marks if mark[1] <= step]
            kept = self._marks[-1][0] if self._marks else 0.0
            self._spent[_Spent.AGAIN] += trained - kept
            trained = self._spent[_Spent.TRAINS] = kept
        if self._marks and trained < self._marks[-1][0] + self._between:
            return
        self._marks.append((trained, step))
        if len(self._marks) > _MARKS:
            del self._marks[1:-1:2]
            self._between = 2 * self._between or 2 * _PERIOD
