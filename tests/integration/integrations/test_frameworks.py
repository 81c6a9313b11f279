"""Trainings with Lightning and Transformers that are stopped go on after that step, as if they had
never been stopped: the real packages, and callbacks of theirs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.integrations.lives import HELD
from tests.support.launches import wait_until
from tests.support.torch_forks import Forked, TorchForks

pytestmark = pytest.mark.launch

_ROOT = Path(__file__).parents[3]
_PROGRAM = "tests.integration.integrations.launching_program:main"
# One thread: on a busy machine others only wait for their turn, and take its time with that.
_ENV = {"HF_HUB_ENV": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
_SOON = 150.0  # seconds: for an import on a machine that does much else


@contextmanager
def launched(forks: TorchForks, folder: Path, training: str, how: str) -> Iterator[Forked]:
    args = {"training": training, "folder": str(folder), "start_method": how}
    program = forks.fork(_PROGRAM, args, folder / f"output-{how}", _ENV)
    try:
        yield program
    finally:
        program.close()


def lives(folder: Path, number: int) -> list[dict[str, Any]]:
    found = [json.loads((folder / f"life-{number}-{rank}").read_text()) for rank in (0, 1)]
    assert all(life["handler kept"] for life in found)
    return found


@pytest.mark.parametrize(
    ("training", "start_method"), [("lightning", "forkserver"), ("transformers", "spawn")]
)
def test_a_training_whose_agent_got_sigterm_goes_on_after_the_step_at_which_it_was_stopped(
    training: str, start_method: str, torch_forks: TorchForks, temporary: Path
) -> None:
    """The first life is a function, and the second one a script."""
    with launched(torch_forks, temporary, training, start_method) as program:
        said = program.output
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

    with launched(torch_forks, temporary, training, "script") as program:
        assert program.ended(_SOON), program.output.read_text()
    second = lives(temporary, 2)
    assert [life["stopped"] for life in second] == [False, False]
    for one, other in zip(first, second, strict=True):
        assert one["notes"][-1][:2] == ["step", HELD]
        assert one["notes"] + other["notes"] == one["whole"]
    assert first[0]["whole"] != first[1]["whole"]
    for how in (start_method, "script"):
        lines = (temporary / f"output-{how}").read_text().replace("\r", "\n").splitlines()
        assert len(lines) < 60, lines
        assert not [line for line in lines if "it/s" in line]


@pytest.mark.parametrize("training", ["lightning", "transformers"])
def test_it_is_the_same_training_wherever_it_is_stopped(training: str, temporary: Path) -> None:
    """In the middle of an epoch, at its end and where a validation is due; twice in an epoch; with
    gradients that are added up, and with schedules that follow the loss.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"tests.integration.integrations.{training}_training",
            "stops",
            temporary,
        ],
        cwd=_ROOT,
        env=os.environ | _ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
