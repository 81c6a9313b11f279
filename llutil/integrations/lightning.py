"""``ElasticCallback`` for Lightning: a run that is stopped anywhere goes on after that step::

    elastic = ElasticCallback()
    trainer = Trainer(..., callbacks=[elastic])
    trainer.fit(model, ckpt_path=elastic.ckpt_path)

A step is one of the optimizer. A validation or an end of an epoch that follows belongs to it, so a
checkpoint comes after that. Model, optimizers, schedulers and loops are in Lightning's own
checkpoint; each rank adds its random states. This module imports Lightning, by either name.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from llutil import worker
from llutil.integrations.lightning_position import Position, callback_class, more_follows, save_now

__all__ = ["ElasticCallback"]


class ElasticCallback(callback_class()):  # type: ignore[misc]
    """``ckpt_path`` is what to resume from, or None; ``stopped`` says whether ``fit`` has ended
    because the job is to stop. Lightning's handler of SIGTERM and its progress bar are turned off.
    """

    def __init__(self) -> None:
        self._done = worker.resume()
        self.ckpt_path = f"{self._done.path}/lightning.ckpt" if self._done else None
        self.stopped = self._is_due = self._has_ended = False
        self._position = Position()
        self._steps = self._total = self._optimized = 0
        self._metrics: dict[str, Any] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        # The last one: a checkpoint has what the other callbacks did after the same step.
        trainer.callbacks = [*(one for one in trainer.callbacks if one is not self), self]
        if trainer.progress_bar_callback is not None and not sys.stdout.isatty():
            trainer.progress_bar_callback.disable()
        self._sigterm = signal.getsignal(signal.SIGTERM)

    def state_dict(self) -> dict[str, int]:
        batch = self._position.batch
        return {"steps": self._steps, "batch": batch, "has_ended": self._has_ended}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._steps, self._position.batch = state_dict["steps"], state_dict["batch"]
        self._has_ended = bool(state_dict["has_ended"])

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._position.begin_fit(trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self._sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)
        self._optimized, total = trainer.global_step, trainer.estimated_stepping_batches
        self._total = int(total) if 0 < total < float("inf") else 0
        if self._done and trainer.ckpt_path == self.ckpt_path:
            self._position.restore(trainer, self._done)
            trainer.should_stop |= self._has_ended
        else:  # what it begins with may be a training's that has ended
            self._has_ended = False

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._position.begin_epoch(trainer)
        self._report(trainer)
        self._leave()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._report(trainer)
        self._leave()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._optimized:
            return  # gradients are only added up
        self._optimized, self._is_due = trainer.global_step, True
        self._steps, self._position.batch = self._steps + 1, batch_idx + 1
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None and pl_module.automatic_optimization:
            loss = loss * trainer.accumulate_grad_batches  # Lightning has divided it by that (2.6)
        self._metrics = {} if loss is None else {"loss": loss}
        if not more_follows(trainer, batch_idx):
            self._report(trainer)
            self._leave()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_last_batch:
            self._report(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._is_due:
            self._has_ended = trainer.should_stop  # early: Lightning would forget that
            self._position.end_epoch()
        self._report(trainer)

    def _report(self, trainer: Any) -> None:
        if not self._is_due:
            return
        self._is_due = False
        todo = worker.step(self._steps, self._total, **self._metrics)
        if todo.checkpoint:
            with worker.checkpoint(self._steps) as folder:
                save_now(trainer, f"{folder}/lightning.ckpt")
                self._position.save(trainer, folder)
        if todo.stop:
            self.stopped = trainer.should_stop = True

    def _leave(self) -> None:
        """End ``fit``, by Lightning's own way out of its loops: the epoch's end is not due yet."""
        if self.stopped:
            raise StopIteration
