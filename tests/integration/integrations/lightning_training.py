"""A small training with Lightning, in which all counts that a checkpoint has to keep: the order of
the data, dropout, momenta, a schedule. As a program it is a rank of the second life.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.plugins.io import AsyncCheckpointIO
from torch.utils.data import DataLoader, TensorDataset

from llutil import worker
from llutil.integrations.lightning import ElasticCallback
from tests.integration.integrations.lives import differences, one_life

__all__ = ["life", "other_job", "stops"]


class Model(LightningModule):
    def __init__(self, note: Callable[[Any], None], act: Callable[[int], None], plateau: bool):
        super().__init__()
        self.note, self.act, self.plateau = note, act, plateau
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
        )
        self.since: list[float] = []
        self.last_loss = 0.0

    def _loss(self, batch: Any) -> torch.Tensor:
        (x,) = batch
        return (self.layers(x) - x.sum(1, keepdim=True)).pow(2).mean()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.act(self.global_step + 1)
        loss = self._loss(batch)
        self.last_loss = loss.item()
        self.log("loss", loss)
        (group,) = self.optimizers().param_groups
        self.note(["step", self.trainer.fit_loop.total_batch_idx + 1, loss.item(), group["lr"]])
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.since.append(self._loss(batch).item())

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.note(["validation", *self.since])
        self.since = []

    def on_train_epoch_end(self) -> None:
        self.note(["epoch", self.current_epoch])

    def on_train_end(self) -> None:
        self.act(0)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        if not self.plateau:
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "loss", "interval": "epoch"},
        }


class _Behind(AsyncCheckpointIO):
    """Saves half a second after it was told to."""

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._ensure_setup()
        self._executor.submit(time.sleep, 0.5)
        super().save_checkpoint(*args, **kwargs)


def fit(
    note: Callable[[Any], None],
    act: Callable[[int], None],
    *,
    elastic: bool,
    devices: int = 1,
    samples: int = 11,
    batch_size: int = 4,
    plateau: bool = False,
    behind: bool = False,
    ends_early: bool = False,
    begins_with: str | None = None,
    **options: Any,
) -> bool:
    """Three epochs; whether they were stopped."""
    seed_everything(1, verbose=False)
    data = TensorDataset(torch.rand(samples, 4, generator=torch.Generator().manual_seed(0)))
    callback = ElasticCallback() if elastic else Callback()
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=elastic,
        callbacks=[callback, EarlyStopping("loss", 100.0, patience=1 if ends_early else 9)],
        plugins=[_Behind()] if behind else [],
        **options,
    )
    model = Model(note, act, plateau)
    trainer.fit(
        model,
        DataLoader(data, batch_size, shuffle=True),
        DataLoader(data, batch_size=samples),
        ckpt_path=(callback.ckpt_path or begins_with) if elastic else None,
    )
    stopped = elastic and callback.stopped
    if elastic and (shown := callback._metrics.get("loss")) is not None:
        assert abs(float(shown) - model.last_loss) < 1e-6, "the loss is shown as it is"
    if not stopped:
        note(["weights", *(p.sum().item() for p in model.layers.parameters())])
    return stopped


def life(folder: str, is_first: bool) -> None:
    """A rank's life; see ``lives``."""
    torch.set_num_threads(1)

    def on_this_node(note: Any, act: Any, *, elastic: bool) -> bool:
        return fit(note, act, elastic=elastic, devices=worker.local_world_size(), samples=40)

    one_life(on_this_node, Path(folder), is_first=is_first)


def stops(folder: str) -> None:
    """Print what is not the same when trainings are stopped, in this process alone."""
    warnings.simplefilter("ignore")
    rows = [[2, 4], [3], [6]]
    cases: list[tuple[list[list[int]], dict[str, Any]]] = [
        (rows, {}),
        (rows, {"accumulate_grad_batches": 2, "val_check_interval": 2}),
        (rows, {"plateau": True, "limit_val_batches": 0}),
        (rows, {"max_steps": 7, "check_val_every_n_epoch": None, "val_check_interval": 2}),
        ([[2]], {"behind": True}),
        ([[3, 6]], {"ends_early": True}),
    ]
    found: list[str] = []
    for number, (stopped, case) in enumerate(cases):
        found += differences(fit, Path(folder, str(number)), stopped, **case)
    print(json.dumps(found))


def other_job(folder: str) -> None:
    """Print the steps of two jobs: of one that ends early, and of one in two lives that begins
    where that has ended.
    """
    warnings.simplefilter("ignore")
    found: list[list[int]] = []
    begins_with = None
    for job, stop, options in (
        ("one", 6, {"ends_early": True}),
        ("other", 8, {}),
        ("other", 0, {}),
    ):
        os.environ["LLUTIL_CHECKPOINTS"] = str(Path(folder, job, "job"))
        worker._state.forget()
        flags = worker.events()
        flags.stop_all_tasks.clear()
        notes: list[Any] = []

        def act(step: int, stop: int = stop, job: str = job, flags: Any = flags) -> None:
            if step and step == stop:
                flags.trigger_save_checkpoint.set()
                if job == "other":
                    flags.stop_all_tasks.set()

        fit(notes.append, act, elastic=True, begins_with=begins_with, **options)
        found.append([note[1] for note in notes if note[0] == "step"])
        (saved,) = Path(folder, job, "job").glob("step-*")
        begins_with = begins_with or f"{saved}/lightning.ckpt"
    print(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    life(sys.argv[1], is_first=False)
