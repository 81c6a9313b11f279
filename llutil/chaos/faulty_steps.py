"""The ``worker.step`` of a rank that faults may strike.

A fault strikes once the step is reported, so the page and the watchdog know it, and before the rank
does what was asked for after it. Of a fault that is not due, a step pays a comparison. This module
may import only the standard library, ``llutil.events`` and the room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from llutil.chaos import journal
from llutil.chaos.faults import Cut, Fault, Hang, Kill, OutOfMemory, Preempt, Slow
from llutil.chaos.memory import note
from llutil.chaos.rank_faults import rank_faults
from llutil.chaos.strikes import (
    hang_for_chaos,
    kill_for_chaos,
    preempt_for_chaos,
    run_out_of_memory,
    say,
)
from llutil.events.events import SLOT_NUMBER, Events
from llutil.events.rank_slot import Slot
from llutil.events.steps import Steps, Todo

__all__ = ["FaultySteps"]

_NEVER = float("inf")


class FaultySteps(Steps):
    """As ``Steps``, with the faults that ``environment`` has for this rank."""

    def __init__(
        self, slot: Slot, page: Events, every: int, environment: Mapping[str, str]
    ) -> None:
        super().__init__(slot, page.gate, every)
        told = rank_faults(environment)
        rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        node = int(environment["GROUP_RANK"])
        mine = told.of_rank(rank, node, int(environment[SLOT_NUMBER]))
        self._rank, self._page = rank, page
        self._memory, self._agent = told.memory, (told.agent, told.agent_start)
        self._due = {name: one for name, one in mine.items() if not isinstance(one, Slow)}
        self._slow = [one for one in mine.values() if isinstance(one, Slow)]
        self._next_due = self._first_due()
        self._keeps_journal = journal.is_kept()
        self._left_at = 0.0
        """When this rank came back from its last step, and later by what it has saved since; 0
        before its first step.
        """
        self._saves_since = 0.0
        if rank == 0:
            self._say_out_of_reach(told.faults, world, int(environment["GROUP_WORLD_SIZE"]))
        for one in self._slow:
            say(f"{one}: rank {rank} takes {one.factor:g} times as long for its steps")

    def step(self, step: int, total: int) -> Todo:
        """Report that ``step`` is finished; and be struck."""
        if self._slow and self._left_at:
            self._slow_down(step)
        todo = super().step(step, total)
        if self._keeps_journal:
            journal.write(step=step)
        if step >= self._next_due:
            self._strike(step)
        self._left_at = time.monotonic()
        return todo

    def saving(self) -> None:
        """The rank begins to write a checkpoint, where it waits for others."""
        self._saves_since = time.monotonic()
        super().saving()

    def left(self) -> None:
        """The rank has left the checkpoint."""
        super().left()
        if self._left_at:
            self._left_at += time.monotonic() - self._saves_since

    def _slow_down(self, step: int) -> None:
        worked = time.monotonic() - self._left_at
        for one in self._slow:
            if one.step <= step and (not one.steps or step < one.step + one.steps):
                time.sleep((one.factor - 1) * worked)

    def _first_due(self) -> float:
        return min((one.step for one in self._due.values()), default=_NEVER)

    def _strike(self, step: int) -> None:
        """Let those strike that are due and have not struck yet; of faults that end this rank, the
        first.
        """
        for name, one in [*self._due.items()]:
            if step < one.step:
                continue
            del self._due[name]
            self._next_due = self._first_due()
            try:
                strikes = note(self._memory, name)
            except OSError as error:
                say(f"{one} does not strike: nobody could note that it has: {error}")
                continue
            if strikes:
                say(f"{one} strikes rank {self._rank} after step {step}")
                if self._keeps_journal:
                    journal.write(struck=str(one), step=step)
                self._make(one)

    def _make(self, fault: Fault) -> None:
        match fault:
            case Preempt():
                try:
                    preempt_for_chaos(*self._agent)
                except OSError as error:
                    say(f"{fault}: the agent {self._agent[0]} got no SIGTERM: {error}")
            case Cut(seconds=seconds):
                self._page.cut_order.give(seconds)
            case Kill() | Hang() | OutOfMemory():
                _ENDS[type(fault)]()
            case Slow():
                raise AssertionError("a slow rank is no event")

    @staticmethod
    def _say_out_of_reach(faults: Iterable[Fault], world: int, nodes: int) -> None:
        for one in faults:
            if isinstance(one, Preempt | Cut):
                if one.node >= nodes:
                    say(f"{one} strikes nobody in this round, which has {nodes} nodes")
            elif one.rank >= world:
                say(f"{one} strikes nobody in this round, which has {world} ranks")


_ENDS: Mapping[type[Fault], Callable[[], NoReturn]] = {
    Kill: kill_for_chaos,
    Hang: hang_for_chaos,
    OutOfMemory: run_out_of_memory,
}
