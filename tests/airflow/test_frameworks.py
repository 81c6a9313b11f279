"""The examples with Lightning and Transformers in a real Airflow, where they are marked failed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.airflow.client import Client, Run
from tests.airflow.conftest import await_nothing_left
from tests.airflow.server import Airflow

pytestmark = pytest.mark.airflow

_EXAMPLES = ("train_lightning", "train_transformers")


@pytest.fixture(scope="module")
def runs(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """A run of each example, whose steps take their time, started together."""
    folder = tmp_path_factory.mktemp("checkpoints")
    client.await_dags(*_EXAMPLES)
    conf = {"checkpoints": str(folder), "epochs": 100, "seconds_a_step": 0.1}
    found = {name: client.trigger(name, conf) for name in _EXAMPLES}
    yield found
    for run in found.values():
        run.end()


@pytest.mark.parametrize("name", _EXAMPLES)
def test_an_example_that_is_marked_failed_goes_on_after_that_step_once_it_is_cleared(
    name: str, runs: dict[str, Run], server: Airflow
) -> None:
    task = runs[name].task("train")
    task.await_text("progress: rank 0", seconds=150)
    task.mark("failed")
    await_nothing_left(server, task.run, seconds=40)
    stopped = re.findall(r"ranks of this node stop after step (\d+)", task.text())
    assert len(stopped) == 1, task.text()
    assert f"the checkpoint of step {stopped[0]} is committed" in task.text()
    task.clear()
    task.await_try(2)
    task.await_text(f"training begins after step {stopped[0]}", try_number=2, seconds=150)
    task.run.mark("failed")
