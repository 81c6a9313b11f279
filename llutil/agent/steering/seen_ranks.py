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
        self.slots = [events.slot(local_rank) for local_rank in ranks.pids] if ranks else []

    @property
    def over(self) -> set[int]:
        """The local ranks whose part is over."""
        return self._ranks.over if self._ranks is not None else set()

    @property
    def count_steps(self) -> bool:
        """Whether one has called ``worker.step``."""
        return any(slot.ahead for slot in self.slots)

    @property
    def saved(self) -> int:
        """The step after that of the last checkpoint that is committed for all; 0 if none is."""
        return min((slot.saved for slot in self.slots), default=0)

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
