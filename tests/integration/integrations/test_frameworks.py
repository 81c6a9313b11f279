"""Trainings with Lightning and Transformers that are stopped go on after that step, as if they had
never been stopped: the real packages, and callbacks of theirs.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.integrations.lives import HELD
from tests.support.launches import wait_until
from tests.support.leftovers import MARK
from tests.support.torch_forks import Forked, TorchForks

pytestmark = pytest.mark.launch

_ROOT = Path(__file__).parents[3]
_ROOM = "tests.integration.integrations"
_FRAMEWORKS = ("lightning", "transformers")
# One thread: on a busy machine others only wait for their turn, and take its time with that.
_ENV = {"HF_HUB_ENV": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
_SOON = 150.0  # seconds: for an import on a machine that does much else


@pytest.fixture(scope="module")
def forks() -> Iterator[TorchForks]:
    """A process to fork from which has both frameworks imported: that takes five seconds each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENV.items():
            patch.setenv(name, value)
        agent = ("llutil.launcher.run", "llutil.agent.ledger_agent")
        forks = TorchForks(*agent, *(f"{_ROOM}.{training}_training" for training in _FRAMEWORKS))
    yield forks
    forks.close()


@contextmanager
def forked(forks: TorchForks, call: str, output: Path, **args: Any) -> Iterator[Forked]:
    env = {name: os.environ[name] for name in (MARK, "TMPDIR")}
    program = forks.fork(f"{_ROOM}.{call}", args, output, env)
    try:
        yield program
    finally:
        program.close()


def lives(folder: Path, number: int) -> list[dict[str, Any]]:
    found = [json.loads((folder / f"life-{number}-{rank}").read_text()) for rank in (0, 1)]
    assert all(life["handler kept"] for life in found)
    return found


@pytest.mark.parametrize("training", _FRAMEWORKS)
def test_a_training_whose_agent_got_sigterm_goes_on_after_the_step_at_which_it_was_stopped(
    training: str, forks: TorchForks, temporary: Path
) -> None:
    """The first life is a function, and the second one a script."""
    args: dict[str, Any] = {"training": training, "folder": str(temporary)}
    said, said_later = temporary / "output-1", temporary / "output-2"
    with forked(forks, "launching_program:main", said, is_first=True, **args) as program:
        held = [temporary / f"held-{rank}" for rank in (0, 1)]
        assert wait_until(lambda: all(path.exists() for path in held), _SOON), said.read_text()
        program.signal(signal.SIGTERM)
        decided = f"all ranks save a checkpoint after step {HELD}"
        assert wait_until(lambda: decided in said.read_text(), _SOON), said.read_text()
        (temporary / "go").touch()
        assert program.ended(_SOON), said.read_text()
    assert f"the checkpoint of step {HELD} is committed" in said.read_text()
    first = lives(temporary, 1)
    assert [life["stopped"] for life in first] == [True, True]

    with forked(forks, "launching_program:main", said_later, is_first=False, **args) as program:
        assert program.ended(_SOON), said_later.read_text()
    second = lives(temporary, 2)
    assert [life["stopped"] for life in second] == [False, False]
    for one, other in zip(first, second, strict=True):
        assert one["notes"][-1][:2] == ["step", HELD]
        assert one["notes"] + other["notes"] == one["whole"]
    assert first[0]["whole"] != first[1]["whole"]
    for output in (said, said_later):
        lines = output.read_text().replace("\r", "\n").splitlines()
        assert len(lines) < 60, lines
        assert not [line for line in lines if "it/s" in line]


@pytest.mark.parametrize("training", _FRAMEWORKS)
def test_it_is_the_same_training_wherever_it_is_stopped(
    training: str, forks: TorchForks, temporary: Path
) -> None:
    """In the middle of an epoch, at its end and where a validation is due; twice in an epoch; with
    gradients that are added up, and with schedules that follow the loss.
    """
    output = temporary / "output"
    with forked(forks, f"{training}_training:stops", output, folder=str(temporary)) as program:
        assert program.ended(_SOON), output.read_text()
    assert json.loads(output.read_text().splitlines()[-1]) == []


def test_transformers_keeps_its_own_best_checkpoint_and_takes_none_of_the_jobs_for_it(
    forks: TorchForks, temporary: Path
) -> None:
    """``save_total_limit=1`` deletes all but the best one at a training's end."""
    output = temporary / "output"
    with forked(forks, "transformers_training:best", output, folder=str(temporary)) as program:
        assert program.ended(_SOON), output.read_text()
    whole, stopped, best = json.loads(output.read_text().splitlines()[-1])
    assert whole[0]
    assert stopped == whole
    assert any(best)
    own = {str(temporary / name) for name in ("whole", "stopped")}
    assert {str(Path(path).parent) for path in best if path} <= own


def test_a_job_that_begins_where_another_one_ended_early_does_not_end_with_it(
    forks: TorchForks, temporary: Path
) -> None:
    output = temporary / "output"
    with forked(forks, "lightning_training:other_job", output, folder=str(temporary)) as program:
        assert program.ended(_SOON), output.read_text()
    found = json.loads(output.read_text().splitlines()[-1])
    assert found == [[1, 2, 3, 4, 5, 6], [7, 8], [9]]
