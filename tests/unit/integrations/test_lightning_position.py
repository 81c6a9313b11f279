"""What is known of Lightning's loops, with no Lightning."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llutil.integrations.lightning_position import Position, callback_class, more_follows

NAMES = ("lightning.pytorch", "pytorch_lightning")


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (name.partition(".")[0], name):
        module = ModuleType(part)
        module.Callback = type(name, (), {})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, part, module)


@pytest.mark.parametrize("name", NAMES)
def test_lightning_goes_by_the_name_that_the_program_uses(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in NAMES:
        monkeypatch.delitem(sys.modules, one, raising=False)
    stand_in(name, monkeypatch)
    assert callback_class().__name__ == name


def test_without_lightning_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install lightning, or pytorch-lightning"):
        callback_class()


def test_what_a_broken_lightning_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'torchmetrics'", name="torchmetrics")

    monkeypatch.setattr("llutil.integrations.lightning_position.import_module", lacks)
    with pytest.raises(ModuleNotFoundError, match="torchmetrics"):
        callback_class()


@pytest.mark.parametrize(
    ("done", "ranks", "now", "added_up", "batches", "wanted"),
    [
        (6, 2, 1, 1, 20, 12),
        (6, 2, 4, 1, 5, 3),
        (5, 2, 4, 1, 5, 2),  # a half batch is done again
        (5, 3, 2, 1, 12, 7),
        (6, 2, 1, 4, 20, 12),
        (6, 3, 2, 4, 20, 8),  # in the middle of a step: that is done again
        (1, 1, 2, 1, 9, 0),
        (9, 2, 1, 1, 18, 17),  # the epoch's last batch ends it
        (6, 2, 1, 1, float("inf"), 12),
    ],
)
def test_another_number_of_ranks_goes_on_in_the_same_part_of_the_epoch(
    done: int, ranks: int, now: int, added_up: int, batches: float, wanted: int
) -> None:
    position = Position()
    position.batch = done
    current = SimpleNamespace(ready=done, started=done, processed=done, completed=done - 1)
    progress = SimpleNamespace(current=current)
    trainer = SimpleNamespace(
        world_size=now,
        accumulate_grad_batches=added_up,
        num_training_batches=batches,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    position._scale(trainer, ranks)
    assert position.batch == wanted
    assert vars(current) == {
        "ready": wanted,
        "started": wanted,
        "processed": wanted,
        "completed": wanted - 1,
    }


ORDINARY = {
    "is_last_batch": False,
    "should_stop": False,
    "max_steps": -1,
    "global_step": 7,
    "val_check_batch": 4,
    "enable_validation": True,
    "check_val_every_n_epoch": 1,
    "fit_loop": SimpleNamespace(total_batch_idx=11),
}


@pytest.mark.parametrize(
    ("batch", "what", "follows"),
    [
        (1, {}, False),
        (3, {}, True),
        (3, {"enable_validation": False}, False),
        (3, {"val_check_batch": None}, False),
        (3, {"val_check_batch": float("inf")}, False),
        (1, {"is_last_batch": True}, True),
        (1, {"should_stop": True}, True),
        (1, {"max_steps": 8}, False),
        (1, {"max_steps": 7}, True),
        (1, {"check_val_every_n_epoch": None}, True),  # the twelfth of all
    ],
)
def test_what_comes_after_a_step_is_foreseen(
    batch: int, what: dict[str, Any], follows: bool
) -> None:
    assert more_follows(SimpleNamespace(**(ORDINARY | what)), batch) is follows
