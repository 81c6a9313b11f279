"""A small training with Transformers, as ``lightning_training`` is one with Lightning. Its model is
made from a configuration, with random weights.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from llutil import worker
from llutil.integrations.transformers import ElasticCallback
from tests.integration.integrations.lives import differences, one_life

__all__ = ["best", "life", "stops"]

_SMALL = {
    "vocab_size": 50,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
}


class _Training(Trainer):
    note: Callable[[Any], None]
    act: Callable[[int], None]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.act(self.state.global_step + 1)
        loss = super().training_step(*args, **kwargs)
        (group, *_) = self.optimizer.param_groups
        self.note(["step", self.state.global_step + 1, loss.item(), group["lr"]])
        return loss


class _Notes(TrainerCallback):
    def __init__(self, note: Callable[[Any], None], act: Callable[[int], None]) -> None:
        self.note, self.act = note, act

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        self.note(["validation", state.global_step, metrics["eval_loss"], state.best_metric])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_training_stop:
            self.act(0)


def fit(
    note: Callable[[Any], None],
    act: Callable[[int], None],
    *,
    elastic: bool,
    samples: int = 11,
    **options: Any,
) -> bool:
    """Three epochs; whether they were stopped."""
    set_seed(1)
    generator = torch.Generator().manual_seed(0)
    data = [
        {"input_ids": torch.randint(0, 50, (6,), generator=generator), "labels": number % 2}
        for number in range(samples)
    ]
    with tempfile.TemporaryDirectory() as output:
        trainer = _Training(
            model=BertForSequenceClassification(BertConfig(**_SMALL)),
            args=TrainingArguments(
                use_cpu=True,
                per_device_train_batch_size=4,
                num_train_epochs=3,
                learning_rate=0.01,
                logging_steps=3,
                report_to=[],
                disable_tqdm=not elastic,
                **{"save_strategy": "no", "output_dir": output, **options},
            ),
            train_dataset=data,
            eval_dataset=data,
        )
        trainer.note, trainer.act = note, act
        trainer.add_callback(_Notes(note, act))
        callback = ElasticCallback(trainer) if elastic else None
        trainer.train(resume_from_checkpoint=callback.resume_from_checkpoint if callback else None)
    stopped = callback is not None and callback.stopped
    if not stopped:
        note(["weights", *(p.sum().item() for p in trainer.model.parameters())])
    return stopped


def life(folder: str, is_first: bool) -> None:
    """A rank's life; see ``lives``."""
    torch.set_num_threads(1)

    def on_this_node(note: Any, act: Any, *, elastic: bool) -> bool:
        return fit(note, act, elastic=elastic, samples=40, eval_strategy="epoch")

    one_life(on_this_node, Path(folder), is_first=is_first)


def stops(folder: str) -> None:
    """Print what is not the same when trainings are stopped, in this process alone."""
    warnings.simplefilter("ignore")
    tempfile.tempdir = folder
    by_steps = {
        "gradient_accumulation_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "lr_scheduler_type": "reduce_lr_on_plateau",
    }
    by_epoch = {
        "eval_strategy": "epoch",
        "save_strategy": "best",
        "metric_for_best_model": "loss",
    }
    found = differences(fit, Path(folder, "steps"), [[2, 3]], **by_steps)
    found += differences(fit, Path(folder, "epoch"), [[2, 3]], **by_epoch)
    print(json.dumps(found))


def best(folder: str) -> None:
    """Print what the Trainer has of its best checkpoint at the end, after no stop and after one,
    and where each of its states says that the best one is.
    """
    warnings.simplefilter("ignore")
    os.environ["LLUTIL_CHECKPOINTS"] = str(Path(folder, "job"))
    options = {
        "eval_strategy": "steps",
        "eval_steps": 3,
        "save_strategy": "steps",
        "save_steps": 3,
        "save_total_limit": 1,
        "metric_for_best_model": "loss",
        "load_best_model_at_end": True,
    }
    found: list[Any] = []
    for name, stops in {"whole": (0,), "stopped": (3, 0)}.items():
        output = Path(folder, name)
        notes: list[Any] = []
        for stop in stops:
            flags = worker.events()
            flags.stop_all_tasks.clear()

            def act(step: int, stop: int = stop, flags: Any = flags) -> None:
                if step and step % 3 == 0:
                    flags.trigger_save_checkpoint.set()
                if step and step == stop:
                    flags.stop_all_tasks.set()

            elastic = name == "stopped"
            fit(notes.append, act, elastic=elastic, output_dir=str(output), **options)
            worker._state.forget()
        found.append([sorted(path.name for path in output.iterdir()), notes[-1]])
    while list(Path(folder, "job").glob(".removed-*")):  # old checkpoints, removed behind
        time.sleep(0.01)
    states = [json.loads(path.read_text()) for path in Path(folder).rglob("trainer_state.json")]
    print(json.dumps([*found, [state["best_model_checkpoint"] for state in states]]))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    life(sys.argv[1], is_first=False)
