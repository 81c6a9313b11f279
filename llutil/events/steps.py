"""What a rank does when it finishes a step: it reports, and learns what all ranks do now.

Usually that is nothing: the rank writes its words, reads one of the gate's, and goes on. Otherwise
it takes the gates that are new to it, in order. It waits while the newest is not open, and does
what was decided for the step that it has just finished. What was decided for a later step it finds
again there; steps of later gates are never smaller. A checkpoint after every so many steps needs no
gate: all ranks know the number.

This module may import only the standard library and its own room.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import NamedTuple

from llutil.events.events import Events
from llutil.events.gate import LONGEST_STEP, RAISED, Gate, Kinds
from llutil.events.rank_slot import AHEAD, HEARTBEAT, STEP, TOTAL, Doing, Slot

__all__ = ["LoneSteps", "Steps", "Todo"]

_log = logging.getLogger(__name__)


class Todo(NamedTuple):
    """What every rank of the job does after the step that it has just finished.

    ``checkpoint``: enter ``worker.checkpoint`` with this step. ``stop``: end, with a result. Once
    it is asked for, ``stop`` stays true.
    """

    checkpoint: bool = False
    stop: bool = False


_NOTHING = Todo()


class Steps:
    """The steps of the rank that has ``slot``, held by ``gate``. One thread calls it.

    ``every`` is the number of steps after which the rank saves without being asked; 0: never.
    """

    def __init__(self, slot: Slot, gate: Gate, every: int = 0) -> None:
        self._slot, self._words = slot, slot.words
        self._gate, self._gate_words = gate, gate.words
        self._thread = 0
        self._last = 0
        # The newest gate that this rank has come to; 0 before the first.
        self._taken = 0
        # There is nothing to do as long as this gate is the newest, before this step.
        self._quiet, self._until = 0, 0
        # The gate that paused this rank, and the one whose checkpoint it may be writing; or 0.
        self._paused_by = self._saving_for = 0
        # The gate whose checkpoint is the last thing that this rank does, for all that is known.
        self._waits_after = 0
        self._stopped = False
        # How many times the step went through ``every``; -1 before the first report.
        self._every, self._times = every, -1

    def step(self, step: int, total: int) -> Todo:
        """Report that ``step`` is finished; see ``llutil.worker.step``."""
        if threading.get_ident() != self._thread:
            self._take_thread()
        try:
            if not self._last <= step <= LONGEST_STEP:
                raise ValueError
            words = self._words
            if total:
                words[TOTAL] = total
            words[STEP] = step
            words[AHEAD] = step + 2
        except (TypeError, ValueError) as error:
            raise self._refusal(step, total, error) from None
        self._last = step
        words[HEARTBEAT] = time.monotonic_ns()
        if self._gate_words[RAISED] == self._quiet and step < self._until:
            return _NOTHING
        return self._pass_gates(int(step))

    def saving(self) -> None:
        """The rank begins to write a checkpoint."""
        self._slot.doing = Doing.CHECKPOINT

    def saved(self, step: int | None) -> None:
        """The checkpoint is committed, if there is a ``step``; or else it failed."""
        if step is not None:
            self._slot.saved = step + 1
        else:
            self._waits_after = 0
        self._end_save()

    def left(self) -> None:
        """The rank has left the context of a checkpoint, which may go on behind.

        If its round is about to end, it waits here: the steps that it would make now are lost.
        """
        while self._waits_after and self._is_paused():
            turn = self._gate.turn[0]
            newest = self._gate.decision(self._gate_words[RAISED])
            if self._gate_words[RAISED] > self._waits_after and newest and newest.kinds:
                break  # something else is asked for, after the next step
            self._slot.doing = Doing.HELD
            if why := self._gate.wait(turn, bounded=False):
                _log.warning("the rank goes on after its checkpoint: %s", why)
                break
        self._waits_after = 0
        self._slot.doing = Doing.STEPS
        self._slot.heartbeat = time.monotonic_ns()

    def _pass_gates(self, step: int) -> Todo:
        self._end_save()
        gate, words = self._gate, self._words
        is_due = self._is_due(step)
        kinds = Kinds.NOTHING
        while True:
            turn = gate.turn[0]
            raised = self._gate_words[RAISED]
            undecided, stop_ahead, new = self._take(step, raised)
            kinds |= new
            self._stopped = self._stopped or bool(new & Kinds.STOP)
            goes_on = self._stopped or stop_ahead or kinds & Kinds.CHECKPOINT
            if undecided or (self._is_paused() and not goes_on):
                words[AHEAD] = step + 1
                self._slot.doing = Doing.HELD
                why = gate.wait(turn, bounded=undecided)
                if why:
                    _log.warning(
                        "the rank goes on after step %d, held by gate %d: %s", step, raised, why
                    )
                    self._give_up(raised)
            elif words[AHEAD] == step + 2:
                break
            else:  # said before one more look at the gate: see llutil.events.gate
                words[AHEAD] = step + 2
        words[HEARTBEAT] = time.monotonic_ns()
        self._slot.doing = Doing.STEPS
        return self._answer(step, raised, kinds | (Kinds.CHECKPOINT if is_due else Kinds.NOTHING))

    def _is_due(self, step: int) -> bool:
        """Whether this step is the first one beyond a multiple of ``every``, or that multiple."""
        if not self._every:
            return False
        before, self._times = self._times, step // self._every
        if before < 0:  # nobody knows how far the steps before this process went
            return step > 0 and step % self._every == 0
        return self._times > before

    def _take(self, step: int, raised: int) -> tuple[bool, bool, Kinds]:
        """Take the gates that are new. Returns whether the newest is undecided, whether ranks are
        to stop after a later step, and what is done after this one.
        """
        kinds = Kinds.NOTHING
        number = max(self._taken + 1, self._gate.oldest())
        while number <= raised:
            decision = self._gate.decision(number)
            if decision is None:
                return True, False, kinds
            if decision.kinds and decision.step > step:
                return self._look_ahead(number, raised, kinds)
            if decision.kinds and decision.step < step:
                _log.warning(
                    "%s was asked for after step %d, which this rank had left behind: it is at %d",
                    decision.kinds.name,
                    decision.step,
                    step,
                )
            elif decision.kinds:
                kinds |= decision.kinds
                if decision.kinds & Kinds.PAUSE:
                    self._paused_by = number
                if decision.kinds & Kinds.CHECKPOINT:
                    self._saving_for = number
                    self._waits_after = number if decision.kinds & Kinds.PAUSE else 0
            self._taken = number
            number += 1
        return False, False, kinds

    def _look_ahead(self, number: int, raised: int, kinds: Kinds) -> tuple[bool, bool, Kinds]:
        """What ``_take`` returns where gate ``number`` is for a later step."""
        ahead = [self._gate.decision(later) for later in range(number, raised + 1)]
        stop = any(later is not None and later.kinds & Kinds.STOP for later in ahead)
        return None in ahead, stop, kinds

    def _is_paused(self) -> bool:
        if self._paused_by and self._gate.ends_pause(self._paused_by):
            self._paused_by = 0
        return self._paused_by != 0

    def _give_up(self, raised: int) -> None:
        """Wait for nothing that is raised now, and do nothing of it."""
        self._taken = max(self._taken, raised)
        self._paused_by = 0

    def _answer(self, step: int, raised: int, kinds: Kinds) -> Todo:
        if not self._saving_for:
            self._slot.gate = self._taken
        self._quiet, self._until = raised, LONGEST_STEP + 1
        if self._paused_by or self._stopped or self._saving_for:
            self._until = 0
        elif self._taken < raised:
            ahead = self._gate.decision(self._taken + 1)
            self._until = ahead.step if ahead is not None else 0
        if self._every:
            self._until = min(self._until, step - step % self._every + self._every)
        if not kinds and not self._stopped:
            return _NOTHING
        return Todo(bool(kinds & Kinds.CHECKPOINT), self._stopped)

    def _end_save(self) -> None:
        """The checkpoint that was asked for is over: written, or the rank did not write it."""
        if self._saving_for:
            self._saving_for = 0
            self._slot.gate = self._taken

    def _take_thread(self) -> None:
        if self._thread:
            raise RuntimeError(
                f"worker.step is called by thread {threading.current_thread().name!r}, but another "
                "thread has called it before: one thread counts the steps of a rank"
            )
        self._thread = threading.get_ident()

    def _refusal(self, step: object, total: object, error: Exception) -> Exception:
        if isinstance(error, ValueError) and isinstance(step, int) and 0 <= step < self._last:
            return ValueError(
                f"step is {step} after step {self._last}: steps never go back. Count them over the "
                "whole job, not by epoch"
            )
        return type(error)(
            f"step is {step!r} and total is {total!r}; wanted whole numbers, step from 0 to "
            f"{LONGEST_STEP}"
        )


class LoneSteps(Steps):
    """The steps of a process without an agent: it does what its own flags say."""

    def __init__(self, events: Events, every: int = 0) -> None:
        super().__init__(events.slot(0), events.gate, every)
        self._events = events

    def saved(self, step: int | None) -> None:
        """The checkpoint is committed, if there is a ``step``."""
        super().saved(step)
        if step is not None:
            self._events.finished_save_checkpoint.set()

    def _pass_gates(self, step: int) -> Todo:
        asked = self._events.trigger_save_checkpoint
        checkpoint = self._is_due(step)
        if asked.is_set():
            checkpoint = True
            asked.clear()
            self._events.finished_save_checkpoint.clear()
        return Todo(checkpoint, self._events.stop_all_tasks.is_set())
