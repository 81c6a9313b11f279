"""A checkpoint that the ranks of this node were asked for, until they have saved it or not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from llutil.agent.steering.page_gates import Asked
from llutil.events.rank_slot import Slot

__all__ = ["AskedCheckpoint"]

_FOREVER = float("inf")
# Seconds for a save that goes on behind, after its rank has left the step, to be committed.
_SAVED_BEHIND = 600.0


@dataclass(slots=True)
class AskedCheckpoint:
    """A checkpoint that ranks were asked for at the gate ``number`` of the ledger."""

    number: int
    asked: Asked
    passed_at: float = _FOREVER
    """When every rank here had left the step behind."""

    def is_saved(self, slots: Collection[Slot], ended: Collection[int], now: float) -> bool | None:
        """Whether it is committed; None while that is not known."""
        if all(slot.saved > self.asked.step for slot in slots):
            return True
        if all(slot.local_rank in ended for slot in slots):
            return False
        if all(self.asked.is_done_by(slot) or slot.local_rank in ended for slot in slots):
            self.passed_at = min(self.passed_at, now)
        return False if now >= self.passed_at + _SAVED_BEHIND else None
