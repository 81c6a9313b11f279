"""The Trainer's checkpoints in the job's folder, with no Transformers."""

from __future__ import annotations

import json
import logging
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace

import pytest

from llutil.errors import ConfigError
from llutil.integrations.transformers_files import save_checkpoint, warn_of_other_steps
from llutil.worker import Checkpoint


class Strategy(StrEnum):
    """As Transformers' own."""

    NO = "no"
    BEST = "best"


OWN = {
    "output_dir": "out",
    "push_to_hub": True,
    "save_only_model": True,
    "save_strategy": Strategy.BEST,
}


class Trainer:
    def __init__(self, error: Exception | None = None) -> None:
        self.args = SimpleNamespace(**OWN)
        self.model = object()
        self.error = error
        self.seen: dict[str, object] = {}

    def _save_checkpoint(self, model: object, trial: object) -> None:
        assert model is self.model
        self.seen = dict(vars(self.args))
        if self.error:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError("disk full")])
def test_the_trainer_writes_into_the_jobs_folder_and_keeps_its_own(error: Exception | None) -> None:
    trainer = Trainer(error)
    if error:
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(trainer, "/job/step-3")
    else:
        save_checkpoint(trainer, "/job/step-3")
    assert trainer.seen == {
        "output_dir": "/job/step-3",
        "push_to_hub": False,
        "save_only_model": False,
        "save_strategy": Strategy.NO,
    }
    assert trainer.seen["save_strategy"] is Strategy.NO
    assert vars(trainer.args) == OWN


def test_a_store_is_refused_before_anything_is_written() -> None:
    trainer = Trainer()
    with pytest.raises(ConfigError, match="s3://bucket/job/step-3, and Transformers writes only"):
        save_checkpoint(trainer, "s3://bucket/job/step-3")
    assert not trainer.seen


@pytest.mark.parametrize(
    ("ranks", "steps", "step", "warned"),
    [(4, 50, 10, True), (4, 100, 10, False), (2, 50, 10, False), (4, 50, 11, False)],
)
def test_steps_that_shift_with_the_number_of_ranks_are_told(
    ranks: int,
    steps: int,
    step: int,
    warned: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    saved = tmp_path / "checkpoint-10"
    saved.mkdir()
    (saved / "trainer_state.json").write_text(json.dumps({"max_steps": 100}))
    with caplog.at_level(logging.WARNING):
        warn_of_other_steps(
            Checkpoint(str(tmp_path), 10, 2),
            SimpleNamespace(world_size=ranks),
            SimpleNamespace(global_step=step, max_steps=steps),
        )
    assert ("this training has 50 steps with 4 ranks and had 100 with 2" in caplog.text) is warned
