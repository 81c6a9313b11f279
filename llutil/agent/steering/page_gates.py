"""The gates of a node's page: raised, opened, and what ranks have yet to do.

A page numbers its gates without a gap. The ledger's numbers may have gaps, and a node that leaves
opens gates of its own. So this keeps both numbers of each gate.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from llutil.events.events import Events
from llutil.events.gate import Kinds, Raised
from llutil.events.rank_slot import Slot
from llutil.rendezvous.protocol.gate_records import WishKind

__all__ = ["Asked", "PageGates", "on_page"]


def on_page(kinds: Iterable[WishKind]) -> Kinds:
    """What ranks do at a step; the page has the same names for it."""
    told = Kinds.NOTHING
    for kind in kinds:
        if kind.needs_step:
            told |= Kinds[kind.name]
    return told


@dataclass(frozen=True, slots=True)
class Asked:
    """What ranks of this node do after ``step``. ``gate`` is the page's number of the gate."""

    gate: int
    step: int
    kinds: Kinds
    why: str

    def is_done_by(self, slot: Slot) -> bool:
        """Whether the rank has done it, or has left the step behind."""
        return slot.gate >= self.gate


class PageGates:
    """The gates of one round, from ``begin`` on."""

    def __init__(self, events: Events) -> None:
        self._gate = events.gate
        self._numbers: dict[int, int] = {}
        """The page's number of each gate, by the ledger's."""
        self._newest = self._open = 0
        self._step = 0
        """The greatest step that was decided for."""

    def begin(self) -> None:
        """The page was reset: its gates are numbered from 1 on."""
        self._numbers.clear()
        self._newest = self._open = self._step = 0

    @property
    def is_undecided(self) -> bool:
        """Whether a gate holds ranks and is not open."""
        return self._newest > self._open

    def raise_gate(self, number: int | None, limit: float, ended: Collection[int]) -> Raised:
        """Raise the next gate; ``number`` is the ledger's, None for one of this node alone. It may
        be opened for ``limit`` seconds. ``ended`` are the local ranks that have ended.
        """
        if self.is_undecided:
            return Raised({}, "the gate before it is not open yet")
        raised = self._gate.raise_gate(self._newest + 1, time.monotonic() + limit, ended)
        if not raised.refusal:
            self._newest += 1
            if number is not None:
                self._numbers[number] = self._newest
        return raised

    def open_gate(
        self, number: int | None, step: int | None, kinds: Kinds, why: str
    ) -> Asked | None:
        """Open the gate. None if ranks do nothing for it: without kinds, for a gate that is open,
        or was never raised here, or too late.
        """
        page = self._newest if number is None else self._numbers.get(number, 0)
        if page <= self._open:
            return None
        in_time = self._gate.open_gate(page, step, kinds)
        self._open = page
        if step is None or not kinds or not in_time:
            return None
        self._step = max(self._step, step)
        return Asked(page, step, kinds, why)

    def stop_alone(self, ended: Collection[int], limit: float, why: str) -> Asked | None:
        """Have the ranks of this node alone stop at their next step. None if they call no step, or
        a gate holds them that is not decided.
        """
        raised = self.raise_gate(None, limit, ended)
        if raised.refusal:
            return None
        if raised.furthest is None:
            self.open_gate(None, None, Kinds.NOTHING, why)
            return None
        return self.open_gate(None, max(raised.furthest, self._step), Kinds.STOP, why)

    def end_pauses(self, number: int) -> None:
        """End the pauses of gates whose number of the ledger is smaller."""
        before = [page for ledger, page in self._numbers.items() if ledger < number]
        if before:
            self._gate.end_pauses(max(before) + 1)
