"""Where in an epoch a rank of Lightning is, so that the next try takes the batches after it.

Lightning (2.6) begins an epoch's batches again after a checkpoint in its middle, but for loaders
that have a state of their own. Here the loader is begun with the random state that it had then, and
the batches that are done are passed over. This file alone knows names that Lightning does not
document.
"""

from __future__ import annotations

import random
import sys
import warnings
from importlib import import_module
from typing import Any

import fsspec
import torch

from llutil.worker import Checkpoint

__all__ = ["Position", "callback_class", "more_follows", "save_now"]

_NAMES = ("lightning.pytorch", "pytorch_lightning")


def callback_class() -> Any:
    """Lightning's ``Callback``, by that of its names that the program uses.

    :raises ImportError: Lightning is not installed.
    """
    for name in sorted(_NAMES, key=lambda name: name not in sys.modules):
        try:
            return import_module(name).Callback
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    raise ImportError(
        "llutil.integrations.lightning needs Lightning: pip install lightning, or pytorch-lightning"
    )


def more_follows(trainer: Any, batch_idx: int) -> bool:
    """Whether a validation, or the end of the epoch or of all, comes before the next batch."""
    if trainer.is_last_batch or trainer.should_stop:
        return True
    if 0 <= trainer.max_steps <= trainer.global_step:
        return True
    every = trainer.val_check_batch
    if not trainer.enable_validation or every in (None, float("inf")):
        return False
    counted = batch_idx
    if trainer.check_val_every_n_epoch is None:
        counted = trainer.fit_loop.total_batch_idx
    return bool((counted + 1) % every == 0)


def save_now(trainer: Any, path: str) -> None:
    """``trainer.save_checkpoint``, whose files are there afterwards. Lightning's
    ``AsyncCheckpointIO`` would go on behind, and nobody would know when it is done.
    """
    strategy = trainer.strategy
    own = strategy.checkpoint_io
    if "AsyncCheckpointIO" in (one.__name__ for one in type(own).__mro__):
        strategy.checkpoint_io = own.checkpoint_io
    try:
        trainer.save_checkpoint(path)
    finally:
        strategy.checkpoint_io = own


class Position:
    """How many batches of the epoch are done, and the random states that make the same again."""

    def __init__(self) -> None:
        self.batch = 0
        self._epoch = -1
        self._at_begin: dict[str, Any] = {}

    def begin_fit(self, trainer: Any) -> None:
        """The loader of the first epoch will be begun, before that epoch."""
        self._epoch, self._at_begin = trainer.current_epoch, _random_states()

    def begin_epoch(self, trainer: Any) -> None:
        """The loader of an epoch will be begun, but for the first one."""
        if trainer.current_epoch != self._epoch:
            self._epoch = trainer.current_epoch
            self.end_epoch()

    def end_epoch(self) -> None:
        """What comes next is the beginning of an epoch."""
        self.batch, self._at_begin = 0, _random_states()

    def save(self, trainer: Any, folder: str) -> None:
        """Write this rank's random states."""
        states = {"begin": self._at_begin, "now": _random_states()}
        with fsspec.open(_path(folder, trainer.global_rank), "wb") as file:
            torch.save(states, file)

    def restore(self, trainer: Any, done: Checkpoint) -> None:
        """Take the batches after those that are done.

        With another number of ranks than then, that is the same part of the epoch, and up to one
        step is done again.
        """
        self._epoch = trainer.current_epoch
        fetcher = trainer.fit_loop._data_fetcher  # noqa: SLF001 - there is no other way to it
        if not self.batch:
            trainer.fit_loop.epoch_loop.restarting = False  # a new epoch, and not the last one
        if done.world_size != trainer.world_size:
            self._scale(trainer, done.world_size)
        loaders = fetcher.combined_loader.flattened
        states: dict[str, Any] = {"begin": {}, "now": {}}
        if trainer.global_rank < done.world_size:
            with fsspec.open(_path(done.path, trainer.global_rank), "rb") as file:
                states = torch.load(file, weights_only=True)
        if not any(hasattr(loader, "load_state_dict") for loader in loaders):
            self._at_begin = states["begin"]
            _set_random_states(states["begin"])
            for loader in loaders:
                _set_epoch(loader, self._epoch)
            iter(fetcher)
            for _ in range(self.batch):
                next(fetcher)
            fetcher.fetched -= self.batch  # Lightning adds them itself
            warnings.filterwarnings("ignore", ".*ended before the epoch ended", UserWarning)
            if not self.batch:
                return
        _set_random_states(states["now"])

    def _scale(self, trainer: Any, before: int) -> None:
        batch = self.batch * before // trainer.world_size
        batch -= batch % trainer.accumulate_grad_batches
        batch = int(max(0, min(batch, trainer.num_training_batches - 1)))
        current = trainer.fit_loop.epoch_loop.batch_progress.current
        lead = current.ready - current.completed
        current.ready = current.started = current.processed = batch
        current.completed = batch - lead
        self.batch = batch


def _path(folder: str, rank: int) -> str:
    return f"{folder}/random-states-{rank}.pt"


def _set_epoch(loader: Any, epoch: int) -> None:
    batches = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)):
        set_epoch = getattr(sampler, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        states["numpy"] = (name, keys.tolist(), *rest)
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    if not states:
        return
    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if "numpy" in states:
        import_module("numpy").random.set_state(states["numpy"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
