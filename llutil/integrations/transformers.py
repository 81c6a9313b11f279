"""``ElasticCallback`` for Transformers: a run that is stopped anywhere goes on after that step::

    trainer = Trainer(...)
    elastic = ElasticCallback(trainer)  # adds itself
    trainer.train(resume_from_checkpoint=elastic.resume_from_checkpoint)

A step is one of the optimizer. What the Trainer logs, evaluates and saves after it belongs to it,
so a checkpoint comes after that. The Trainer itself writes it, with optimizer, scheduler and each
rank's random states, into the job's folder and not into ``output_dir``. This module imports
Transformers, and knows one name that Transformers (5.24) does not document.
"""

from __future__ import annotations

import sys
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from llutil import worker
from llutil.integrations.transformers_files import (
    checkpoint_path,
    save_checkpoint,
    warn_of_other_steps,
)

__all__ = ["ElasticCallback"]


class ElasticCallback(TrainerCallback):  # type: ignore[misc]
    """``resume_from_checkpoint`` is for ``trainer.train``, or None; ``stopped`` says whether that
    has ended because the job is to stop. The Trainer's progress bar becomes lines.

    :raises ConfigError: checkpoints lie in a store; the Trainer writes files.
    """

    def __init__(self, trainer: Any) -> None:
        self._done = done = worker.resume()
        self.resume_from_checkpoint = checkpoint_path(done) if done else None
        self.stopped = self._is_at_end = False
        self._trainer = trainer
        self._reported = 0
        self._metrics: dict[str, float] = {}
        # The Trainer calls it after each step and each epoch, and no callback after that.
        self._finish = trainer._maybe_log_save_evaluate  # noqa: SLF001 - there is no other way
        trainer._maybe_log_save_evaluate = self._finish_and_report  # noqa: SLF001
        if not sys.stderr.isatty():
            disable_progress_bar()
            if trainer.pop_callback(ProgressCallback):
                trainer.add_callback(PrinterCallback)
        trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._reported = state.global_step
        warn_of_other_steps(self._done, args, state)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._is_at_end = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._is_at_end = True
        if self.stopped:  # in the middle of the epoch
            control.should_log = control.should_evaluate = control.should_save = False

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        vars(self._trainer).pop("store_flos", None)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        losses = {name: value for name, value in (logs or {}).items() if "loss" in name}
        self._metrics = {k: float(v) for k, v in losses.items() if isinstance(v, int | float)}

    def _finish_and_report(self, *args: Any, **kwargs: Any) -> None:
        self._finish(*args, **kwargs)
        state = self._trainer.state
        is_epoch_over = state.epoch == int(state.epoch)
        if state.global_step == self._reported or (is_epoch_over and not self._is_at_end):
            return  # what comes at the end of the epoch belongs to its last step
        self._reported = state.global_step
        todo = worker.step(state.global_step, state.max_steps, **self._metrics)
        if todo.checkpoint:
            with worker.checkpoint(state.global_step) as folder:
                save_checkpoint(self._trainer, folder)
        if todo.stop:
            self.stopped = self._trainer.control.should_training_stop = True
            # The Trainer would add up a count of all ranks, of which some may go on elsewhere.
            self._trainer.store_flos = _store_nothing


def _store_nothing() -> None:
    """Stand in for ``Trainer.store_flos``."""
