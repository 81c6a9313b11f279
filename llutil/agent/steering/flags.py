"""What the flags of a node's page ask for, as wishes.

Whoever wants something of a job raises a flag on any node's page: the caller, another shell, the
Airflow task. A flag that says how things are to be (``stop_all_tasks``, ``pause``) is wished again
in the next round, and after a refusal. ``trigger_save_checkpoint`` asks for one checkpoint.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from llutil.events.events import Events
from llutil.rendezvous.protocol.gate_records import WishKind

__all__ = ["FlagReader"]

_FOREVER = float("inf")
# Seconds until what was refused is wished again: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0


class FlagReader:
    """Reads the flags of one page. All times are seconds on one monotonic clock.

    ``saves``: whether the job has a place for checkpoints, so that a stop saves one first.
    ``every``: seconds from one checkpoint to the next; None for no such time.
    """

    def __init__(self, events: Events, *, saves: bool, every: float | None) -> None:
        self._events, self._saves, self._every = events, saves, every
        self._wished: set[WishKind] = set()
        self._pauses: dict[WishKind, float] = {}
        self._not_before: dict[WishKind, float] = {}
        self._due = _FOREVER
        self._saves_soon = False
        """Whether ranks were told to save, and have not done it yet: until then none is due."""
        self._said: dict[WishKind, str] = {}
        """Who raised a flag, and why, where that is known."""
        self._debugs = False
        """Whether others were last told that a rank of this node is debugged."""
        self.stops = self.pauses = False
        """Whether ranks were told to stop, or to pause, in this round."""
        self.debugged = False
        """Whether a rank of the job is debugged."""

    def ask(self, kind: WishKind, why: str) -> None:
        """Raise the flag of ``kind``; ``why`` says who wants it. A debugger raises its own."""
        events = self._events
        match kind:
            case WishKind.CHECKPOINT:
                events.finished_save_checkpoint.clear()
                events.trigger_save_checkpoint.set()
            case WishKind.STOP:
                events.stop_all_tasks.set()
            case WishKind.PAUSE:
                events.resume.clear()
                events.pause.set()
            case WishKind.RESUME:
                events.resume.set()
            case WishKind.STACKS:
                events.show_stacks.set()
            case WishKind.DEBUGGER_START | WishKind.DEBUGGER_END:
                raise ValueError(f"{kind} is no wish of a person's")
        self._said[kind] = why

    def begin(self, now: float, *, first_node: bool) -> None:
        """A round begins. The first node of it asks for checkpoints when they are due."""
        self._wished.clear()
        self._pauses.clear()
        self._not_before.clear()
        self.stops = self.pauses = self.debugged = self._debugs = self._saves_soon = False
        self._due = now + self._every if first_node and self._every else _FOREVER
        self._events.paused.clear()

    def wanted(self, now: float) -> dict[WishKind, str]:
        """What is to be wished now, and why. Each is taken as wished."""
        events = self._events
        found: dict[WishKind, str] = {}
        if events.trigger_save_checkpoint.is_set() and self._may(WishKind.CHECKPOINT, now):
            events.trigger_save_checkpoint.clear()
            events.finished_save_checkpoint.clear()
            found[WishKind.CHECKPOINT] = self._why(WishKind.CHECKPOINT, "trigger_save_checkpoint")
        elif now >= self._due and not self._saves_soon and self._may(WishKind.CHECKPOINT, now):
            found[WishKind.CHECKPOINT] = f"{self._every:g} s have passed since the last one"
        if events.stop_all_tasks.is_set() and not self.stops and self._may(WishKind.STOP, now):
            found[WishKind.STOP] = self._why(WishKind.STOP, "stop_all_tasks")
            if self._saves:
                found.setdefault(WishKind.CHECKPOINT, "")
        if events.resume.is_set():
            if not self.pauses and WishKind.PAUSE not in self._wished:
                self.end_pause()
            elif self._may(WishKind.RESUME, now):
                found[WishKind.RESUME] = self._why(WishKind.RESUME, "resume")
        elif events.pause.is_set() and not self.pauses and self._may(WishKind.PAUSE, now):
            found[WishKind.PAUSE] = self._why(WishKind.PAUSE, "pause")
        self._wished.update(found)
        return found

    def debugger(self, now: float, rank: int | None) -> dict[WishKind, str]:
        """What is to be wished now, and why, if ``rank`` of this node is debugged, or no rank."""
        found: dict[WishKind, str] = {}
        if rank is not None and not self.debugged and self._may(WishKind.DEBUGGER_START, now):
            found[WishKind.DEBUGGER_START] = f"local rank {rank} is debugged"
            self._debugs = True
        elif rank is None and self._debugs and self._may(WishKind.DEBUGGER_END, now):
            found[WishKind.DEBUGGER_END] = "no rank of this node is debugged any more"
            self._debugs = False
        self._wished.update(found)
        return found

    def stacks(self) -> dict[WishKind, str]:
        """What is to be wished now, and why, if somebody wants the stacks of all ranks."""
        if not self._events.show_stacks.is_set() or WishKind.STACKS in self._wished:
            return {}
        self._events.show_stacks.clear()
        self._wished.add(WishKind.STACKS)
        return {WishKind.STACKS: self._why(WishKind.STACKS, "show_stacks")}

    def stacks_shown(self) -> None:
        """All nodes were told to show them."""
        self._wished.discard(WishKind.STACKS)
        self._forget({WishKind.STACKS})

    def follow_debugger(self, rank: int | None, *, debugged: bool) -> None:
        """Whether a rank of the job is debugged. Without one of this node's own, ``rank``, the
        flags of this node say so.
        """
        events = self._events
        self._wished -= {WishKind.DEBUGGER_START, WishKind.DEBUGGER_END}
        if rank is None and debugged:
            events.debugger_end.clear()
            events.debugger_start.set()
        elif rank is None and self.debugged:
            events.debugger_end.set()
            events.debugger_start.clear()
        self.debugged = debugged

    def decided(self, kinds: AbstractSet[WishKind]) -> None:
        """Ranks were told to do ``kinds``. On every node, the flags say so."""
        self._wished -= kinds
        self._forget(kinds)
        if WishKind.CHECKPOINT in kinds:
            self._saves_soon = True
        if WishKind.STOP in kinds:
            self.stops = True
            self._events.stop_all_tasks.set()
        if WishKind.PAUSE in kinds:
            self.pauses = True
            self._events.pause.set()

    def end_pause(self) -> None:
        """The ranks go on after a pause."""
        self._wished -= {WishKind.PAUSE, WishKind.RESUME}
        self._forget({WishKind.PAUSE, WishKind.RESUME})
        self.pauses = False
        for flag in (self._events.pause, self._events.paused, self._events.resume):
            flag.clear()

    def saved(self, now: float) -> None:
        """A checkpoint is committed, or was tried."""
        self._saves_soon = False
        if self._due < _FOREVER and self._every:
            self._due = now + self._every

    def refused(self, kinds: AbstractSet[WishKind], now: float) -> AbstractSet[WishKind]:
        """Nothing came of a wish for ``kinds``: it is made again after a while, if that is still
        wanted. Returns those of ``kinds`` that had been wished here.
        """
        mine = self._wished & kinds
        self._wished -= kinds
        self._debugs = self._debugs or WishKind.DEBUGGER_END in mine
        for kind in mine:
            pause = min(2 * self._pauses.get(kind, _FIRST_PAUSE / 2), _LONGEST_PAUSE)
            self._pauses[kind] = pause
            self._not_before[kind] = now + pause
        return mine

    def _may(self, kind: WishKind, now: float) -> bool:
        return kind not in self._wished and now >= self._not_before.get(kind, 0.0)

    def _why(self, kind: WishKind, flag: str) -> str:
        return self._said.get(kind) or f"{flag} was raised"

    def _forget(self, kinds: AbstractSet[WishKind]) -> None:
        for kind in kinds:
            self._said.pop(kind, None)
