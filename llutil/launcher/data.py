"""``ElasticSampler``: which samples a rank trains on, for jobs whose number of ranks changes.

This module imports torch; ``llutil.launcher`` does not import it by itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler

from llutil import worker
from llutil.chaos import journal
from llutil.errors import ConfigError
from llutil.launcher.global_batches import GlobalBatches

__all__ = ["ElasticSampler"]

_log = logging.getLogger(__name__)

_FIELDS = ("epoch", "samples", "seed", "shuffle", "length")


@dataclass(slots=True)
class _Iteration:
    """One walk through the rest of an epoch: how many batches this rank was given, and how many
    steps all ranks have done.
    """

    batches: GlobalBatches
    rank: int
    given: int = 0
    done: int = 0
    order: Sequence[int] | torch.Tensor = ()


class ElasticSampler(Sampler[list[int]]):
    """Batches of sample numbers for one rank. Its state is one count of samples, over all ranks, so
    a job goes on in the middle of an epoch with any number of ranks, and takes each sample once::

        sampler = ElasticSampler(dataset, batch_size=32)
        loader = DataLoader(dataset, batch_sampler=sampler, num_workers=2)
        if checkpoint:
            sampler.load_state_dict(checkpoint["sampler"])
        for epoch in range(sampler.epoch, epochs):
            sampler.set_epoch(epoch)
            for batch in loader:
                train(batch)
                sampler.advance()  # after each optimizer step
                ...                # a checkpoint here holds sampler.state_dict()

    An epoch's order depends on ``seed`` and the epoch alone. Each step takes the next ``batch_size
    * world_size`` samples of it. What a DataLoader's processes fetch ahead is not in the state: it
    has what ``advance`` was told of. A new iteration goes on behind that, in the same epoch.

    By default each sample of an epoch is taken once, and ranks have the same number of steps, as
    DDP needs: the batches of the last two steps are smaller where that takes it. Where it cannot
    be, for a rest of fewer samples than ranks or for batches of one sample, ranks differ by one
    step and rank 0 logs a warning: train in torch's ``Join`` context
    (``torch.distributed.algorithms.join``), or choose ``drop_last`` or ``pad``.

    :param dataset: what has a length; or that length.
    :param batch_size: how many samples one rank takes in one step.
    :param shuffle: the order is random; else it is the dataset's own.
    :param seed: must be the same on all ranks.
    :param drop_last: all batches are full, and what is left at the end is not trained on.
    :param pad: all batches are full: the last step takes samples of the epoch's beginning again.
    :param rank: this rank's number, and ``world_size`` how many there are. By default both are
        those of torch.distributed if it is initialized, else the launch's; without either there
        is one rank. They are looked up when an iteration begins.
    :raises ConfigError: a value cannot be used.
    """

    def __init__(
        self,
        dataset: Sized | int,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        pad: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        length = dataset if isinstance(dataset, int) else len(dataset)
        self._length = _whole("the length of the dataset", length, least=0)
        self.batch_size = _whole("batch_size", batch_size, least=1)
        self.shuffle, self.drop_last, self.pad = bool(shuffle), bool(drop_last), bool(pad)
        self.seed = _whole("seed", seed)
        if drop_last and pad:
            raise ConfigError("drop_last and pad are both set; wanted at most one of them")
        if (rank is None) != (world_size is None):
            raise ConfigError(f"rank is {rank} and world_size {world_size}; wanted both or neither")
        self._given_place = None
        if rank is not None and world_size is not None:
            self._given_place = _checked_place(rank, world_size)
        self._epoch = 0
        self._samples = 0
        self._told = False
        self._iteration: _Iteration | None = None

    @property
    def epoch(self) -> int:
        """The epoch that is trained; the first one to train after ``load_state_dict``."""
        return self._epoch

    @property
    def samples(self) -> int:
        """How many samples of this epoch all ranks together have trained on."""
        return self._samples

    def set_epoch(self, epoch: int) -> None:
        """Begin ``epoch``, if it is a later one than the present.

        :raises ConfigError: it is an earlier one.
        """
        if _whole("epoch", epoch, least=0) < self._epoch:
            raise ConfigError(
                f"set_epoch({epoch}) after epoch {self._epoch}, of which {self._samples} of "
                f"{self._length} samples are done; begin the loop at sampler.epoch"
            )
        if epoch > self._epoch:
            self._epoch, self._samples, self._iteration = epoch, 0, None

    def __len__(self) -> int:
        """How many batches this rank has in the rest of the epoch."""
        batches, rank = self._rest()
        return batches.steps_of(rank)

    def __iter__(self) -> Iterator[list[int]]:
        before = self._iteration
        if before is not None and 0 < before.done == before.batches.steps:
            raise RuntimeError(
                f"epoch {self._epoch} is done: call set_epoch({self._epoch + 1}) before the next "
                "iteration"
            )
        batches, rank = self._rest()
        if batches.idle_ranks and rank == 0:
            _log.warning(
                "in the last step of epoch %d, %d of %d ranks have no batch: use torch's Join "
                "context, or pad or drop_last",
                self._epoch,
                batches.idle_ranks,
                batches.world_size,
            )
        self._iteration = _Iteration(batches, rank)
        return self._batches(self._iteration)

    def _batches(self, iteration: _Iteration) -> Iterator[list[int]]:
        order = iteration.order = self._order()
        batches = iteration.batches
        for step in range(batches.steps_of(iteration.rank)):
            iteration.given += 1
            yield _at(order, batches.positions(step, iteration.rank))

    def _order(self) -> Sequence[int] | torch.Tensor:
        if not self.shuffle:
            return range(self._length)
        # Not the sum of both: epoch 1 of one seed would be epoch 0 of the next.
        both = hashlib.blake2b(f"{self.seed} {self._epoch}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(both, "big"))
        return torch.randperm(self._length, generator=generator)

    def advance(self, steps: int = 1) -> None:
        """All ranks have trained on their next ``steps`` batches, for good.

        Call it on every rank after the optimizer's step, with the number of batches in it. A rank
        that has no batch in the last step of an epoch may call it for that step, too.

        :raises RuntimeError: this rank was not given as many batches, or no iteration has begun.
        :raises ConfigError: ``steps`` is below 0.
        """
        iteration = self._iteration
        if iteration is None:
            raise RuntimeError("advance() before an iteration has begun: no batch was given")
        done = iteration.done + _whole("steps", steps, least=0)
        given = iteration.given
        if given == iteration.batches.steps_of(iteration.rank):
            given = iteration.batches.steps
        if done > given:
            raise RuntimeError(
                f"advance({steps}) after {iteration.done} steps of this iteration, but this rank "
                f"was given only {iteration.given} batches; call it once a step"
            )
        self._told = True
        if journal.is_kept():
            for step in range(iteration.done, min(done, iteration.given)):
                positions = iteration.batches.positions(step, iteration.rank)
                journal.note_samples(_at(iteration.order, positions), self._epoch)
        iteration.done = done
        self._samples = iteration.batches.end(done)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the epoch, how many of its samples are done, and what makes its
        order. The same on all ranks; plain numbers, so any format can hold it.

        :raises RuntimeError: batches were given, but ``advance`` was never called.
        """
        if self._iteration is not None and self._iteration.given and not self._told:
            raise RuntimeError(
                f"this rank was given {self._iteration.given} batches and advance() was never "
                "called, so nobody knows which ones were trained on: call it after each optimizer "
                "step, or advance(0) if there was none yet"
            )
        # What is dropped at the end of an epoch is over, too: fewer ranks would find a step in it.
        samples = self._length if self._has_dropped_the_rest() else self._samples
        values = (self._epoch, samples, self.seed, self.shuffle, self._length)
        return dict(zip(_FIELDS, values, strict=True))

    def _has_dropped_the_rest(self) -> bool:
        now = self._iteration
        return self.drop_last and now is not None and 0 < now.done == now.batches.steps

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was made, with the ranks that there are now.

        :raises ConfigError: it is not of this sampler's data and order, or not of a sampler.
        """
        if set(state_dict) != set(_FIELDS):
            raise ConfigError(
                f"the state has the fields {sorted(map(str, state_dict))}; wanted "
                f"{sorted(_FIELDS)}, as ElasticSampler.state_dict gives them"
            )
        epoch = _whole("the state's epoch", state_dict["epoch"], least=0)
        samples = _whole("the state's samples", state_dict["samples"], least=0)
        own = {"length": self._length, "seed": self.seed, "shuffle": self.shuffle}
        for name, value in own.items():
            if state_dict[name] != value:
                raise ConfigError(
                    f"the state was saved with {name} {state_dict[name]!r}, and this sampler has "
                    f"{value!r}: its order is another one, so samples would be lost or taken "
                    "twice. Use the same data and seed, or begin the next epoch without this state"
                )
        if samples > self._length:
            raise ConfigError(f"the state has {samples} samples done of {self._length}")
        self._epoch, self._samples, self._iteration = epoch, samples, None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_iteration": None}

    def _rest(self) -> tuple[GlobalBatches, int]:
        """The rest of the epoch for as many ranks as there are now, and which of them this is."""
        rank, world_size = self._given_place or _place()
        batches = GlobalBatches(
            self._length,
            self._samples,
            self.batch_size,
            world_size,
            drop_last=self.drop_last,
            pad=self.pad,
        )
        return batches, rank


def _at(order: Sequence[int] | torch.Tensor, positions: range) -> list[int]:
    """The samples at ``positions`` of ``order``, which begins again behind its end."""
    part = order[positions.start : positions.stop : positions.step]
    samples = part.tolist() if isinstance(part, torch.Tensor) else list(part)
    rest = positions[len(samples) :]
    return samples + [int(order[position % len(order)]) for position in rest]


def _place() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        return _checked_place(worker.rank(), worker.world_size())
    return 0, 1


def _checked_place(rank: int, world_size: int) -> tuple[int, int]:
    _whole("world_size", world_size, least=1)
    if _whole("rank", rank, least=0) >= world_size:
        raise ConfigError(f"rank is {rank} of {world_size}; wanted 0 to {world_size - 1}")
    return rank, world_size


def _whole(name: str, value: Any, *, least: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} is {value!r}; wanted a whole number")
    if least is not None and value < least:
        raise ConfigError(f"{name} is {value}; wanted {least} or more")
    return value
