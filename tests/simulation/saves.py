"""The checkpoints that the ranks of a world save together, and what agents say of them.

A rank that is to save waits until all ranks of its round do, as the context of a checkpoint does:
it returns once the checkpoint is committed, or fails everywhere.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.records import Stage

if TYPE_CHECKING:
    from tests.simulation.steps import Rank
    from tests.simulation.world import World

__all__ = ["Saves"]

_PATIENCE = 15.0
"""Seconds for which ranks wait for those that never come to the step."""


@dataclass(slots=True)
class _Save:
    step: int
    inside: list[tuple[Rank, bool]] = field(default_factory=list)
    """The ranks that wait, and whether they stop then."""


class Saves:
    """The checkpoints of a world; nobody waits for one unless ``rng`` is set."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng: random.Random | None = None
        self.seconds = 0.1
        """How long all ranks take together."""
        self.fails = 0.0
        """How many cannot be saved, 0 to 1."""
        self.unsaid = 0.0
        """How many an agent says nothing of, 0 to 1."""
        self.committed: dict[tuple[Stage, int], float] = {}
        """When it was, by the round and its gate."""
        self._under_way: dict[tuple[Stage, int], _Save] = {}

    def ending_time(self) -> float:
        """How long a rank takes to end once it is told to."""
        assert self.rng is not None
        return self.rng.choice((0.0, 4.0)) * self.rng.random()

    def enter(self, rank: Rank, number: int, stops: bool) -> None:
        """``rank`` saves at the step of that gate. ``stops``: it ends after that."""
        world, rng, place = self.world, self.rng, (rank.page.stage, number)
        assert rng is not None
        save = self._under_way.get(place)
        if save is None:
            save = self._under_way[place] = _Save(rank.step)
            world.at(world.now + _PATIENCE, self._leave, place, "not all ranks came")
        save.inside.append((rank, stops))
        pages = world.steps.pages_of(world.work.rounds[rank.page.stage])
        if len(save.inside) == sum(len(page.ranks) for page in pages):
            failure = "no space left" if rng.random() < self.fails else ""
            world.at(world.now + self.seconds * (0.5 + rng.random()), self._leave, place, failure)

    def _leave(self, place: tuple[Stage, int], failure: str) -> None:
        save = self._under_way.pop(place, None)
        if save is None:
            return
        assert self.rng is not None
        if not failure:
            self.committed[place] = self.world.now
        pages = dict.fromkeys(rank.page for rank, _ in save.inside)
        self.world.note("ranks", f"== gate {place}, step {save.step}: {failure or 'committed'}")
        for rank, stops in save.inside:
            self.world.steps.leave_checkpoint(rank, stops)
        for page in pages:
            if self.rng.random() >= self.unsaid and not page.host.dead:
                page.host.soon(see.CheckpointSaved(*place, failure))
