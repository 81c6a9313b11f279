"""A function that is sent to ranks finds its module there, and so do the processes it starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.dag_files import imported_as_dag_file
from tests.support.launches import launch

pytestmark = pytest.mark.launch

PROGRAM = Path(__file__).parent / "pickling_program.py"
MANGLED = "unusual_prefix_0b0c1d5c2f8a7e6d4b3a29181706f5e4d3c2b1a0_pickling_program"


@pytest.fixture
def dag_file() -> Iterator[Any]:
    """The program, imported as Airflow imports a DAG file: no worker can import it by that name."""
    with imported_as_dag_file(MANGLED, PROGRAM) as module:
        yield module


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_of_a_rank_take_functions_and_objects_of_a_dag_file(
    method: str, dag_file: Any
) -> None:
    (found,) = launch(dag_file.pools, dag_file.Argument(), start_method=method).values()
    returned = [dag_file.Conf(3.0), "came along"]
    assert found == {"fork": returned, "spawn": returned, "forkserver": returned}


def test_training_code_pickles_objects_of_the_program_that_launched_it(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stdout.splitlines()[-1:] == ["all of it"], run.stderr
