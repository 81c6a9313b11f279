"""What the page says of the ranks of one round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from llutil.agent.steering.page_gates import Asked
from llutil.events.events import Events
from llutil.events.rank_slot import Doing

__all__ = ["Ranks", "SeenRanks"]


class Ranks(Protocol):
    """The ranks of a round: a ``RankGroup``."""

    @property
    def pids(self) -> Mapping[int, int]:
        """By local rank."""

    @property
    def over(self) -> set[int]:
        """The local ranks whose part is over."""


class SeenRanks:
    """The slots of ``ranks`` on the page. Without any, it is of no round."""

    def __init__(self, events: Events, ranks: Ranks | None = None) -> None:
        self._ranks = ranks
        self._saving_since: float | None = None
        self._last_saved = 0
        self.slots = [events.slot(local_rank) for local_rank in ranks.pids] if ranks else []

    def newly_saved(self, now: float) -> tuple[int, float | None] | None:
        """The step of a checkpoint that is committed for all since the last look, and how many
        seconds it took: None if less than the time between two looks. None if there is none.
        """
        if self._saving_since is None and any(one.doing == Doing.CHECKPOINT for one in self.slots):
            self._saving_since = now
        saved = min((slot.saved for slot in self.slots), default=0)
        if saved <= self._last_saved:
            return None
        self._last_saved, began, self._saving_since = saved, self._saving_since, None
        return saved - 1, None if began is None else now - began

    @property
    def over(self) -> set[int]:
        """The local ranks whose part is over."""
        return self._ranks.over if self._ranks is not None else set()

    @property
    def count_steps(self) -> bool:
        """Whether one has called ``worker.step``."""
        return any(slot.ahead for slot in self.slots)

    @property
    def are_held(self) -> bool:
        """Whether a pause holds all that run."""
        running = [slot for slot in self.slots if slot.local_rank not in self.over]
        return bool(running) and all(slot.doing == Doing.HELD for slot in running)

    @property
    def debugged(self) -> int | None:
        """The local rank that is debugged; None if none is, or it was killed at its prompt."""
        found = (slot.local_rank for slot in self.slots if slot.doing == Doing.DEBUGGED)
        return next((rank for rank in found if rank not in self.over), None)

    def came_to(self, asked: Asked | None) -> bool:
        """Whether one has come to the step of ``asked``."""
        # Not by the gate that a rank is done with: it may ignore the checkpoint, and only stop.
        return asked is not None and any(
            slot.ahead and slot.step >= asked.step for slot in self.slots
        )
