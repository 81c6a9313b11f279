"""How the rest of an epoch is cut into global batches, one a step, and these into the ranks'.

It is arithmetic on positions in the epoch's order; ``llutil.launcher.data`` says which sample is at
which position. This module may import only the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GlobalBatches"]


@dataclass(frozen=True, slots=True)
class GlobalBatches:
    """The steps of an epoch of ``length`` samples, from position ``begin`` on.

    Every step takes the next ``batch_size`` samples of each of ``world_size`` ranks. So what the
    first steps have taken is a beginning of the order, whatever the number of ranks was. At the end
    there are three ways:

    * ``drop_last``: samples that are not enough for a full step are left out.
    * ``pad``: the last step takes samples of the order's beginning again, until it is full.
    * neither: each sample is taken once. The last two steps are smaller where needed so that each
      rank has a batch in both. That cannot be if ranks have batches of one sample, or if there are
      fewer samples than ranks from ``begin`` on: then some ranks have no batch in the last step.
    """

    length: int
    begin: int
    batch_size: int
    world_size: int
    drop_last: bool = False
    pad: bool = False

    @property
    def steps(self) -> int:
        """How many steps are left, for all ranks together."""
        rest = self.length - self.begin
        return rest // self._full if self.drop_last else -(-rest // self._full)

    def end(self, steps: int) -> int:
        """The position behind the samples of the first ``steps`` steps."""
        end = min(self.begin + steps * self._full, self.length)
        if 0 < steps == self.steps - 1 and self.batch_size > 1 and not self.pad:
            # The last step gets a sample for each rank, at this one's cost.
            end -= max(0, self.world_size - (self.length - end))
        return end

    def positions(self, step: int, rank: int) -> range:
        """The positions of the batch of ``rank`` in ``step``, which counts from 0."""
        begin, end = self.end(step), self.end(step + 1)
        if self.pad:
            end = begin + self._full
        return range(begin + rank, end, self.world_size)

    def steps_of(self, rank: int) -> int:
        """In how many steps ``rank`` has a batch: in all of them, or in all but the last."""
        steps = self.steps
        return steps - 1 if steps and not self.positions(steps - 1, rank) else steps

    @property
    def idle_ranks(self) -> int:
        """How many ranks have no batch in the last step."""
        last = self.steps_of(self.world_size - 1)
        if last == self.steps:
            return 0
        return self.world_size - (self.length - self.end(last))

    @property
    def _full(self) -> int:
        return self.batch_size * self.world_size
