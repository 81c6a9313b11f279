"""The examples with Lightning and Transformers in a real Airflow, where they are marked failed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.airflow.client import Client, Task
from tests.airflow.conftest import await_nothing_left
from tests.airflow.server import Airflow

pytestmark = pytest.mark.airflow

_EXAMPLES = ("train_lightning", "train_transformers")


@pytest.fixture(scope="module")
def tasks(
    client: Client, server: Airflow, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Task]]:
    """The task of each example, whose steps take their time. All of them have been marked failed
    while they trained, and cleared when nothing was left of them.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    client.await_dags(*_EXAMPLES)
    conf = {"checkpoints": str(folder), "epochs": 100, "seconds_a_step": 0.1}
    found = {name: client.trigger(name, conf).task("train") for name in _EXAMPLES}
    try:
        for task in found.values():
            task.await_text("progress: rank 0", seconds=150)
        for task in found.values():
            task.mark("failed")
        for task in found.values():
            await_nothing_left(server, task.run, seconds=40)
        for task in found.values():
            task.clear()
        yield found
    finally:
        for task in found.values():
            task.run.end()


@pytest.mark.parametrize("name", _EXAMPLES)
def test_an_example_that_is_marked_failed_goes_on_after_that_step_once_it_is_cleared(
    name: str, tasks: dict[str, Task]
) -> None:
    task = tasks[name]
    said = task.text(try_number=1)
    stopped = re.findall(r"ranks of this node stop after step (\d+)", said)
    assert len(stopped) == 1, said
    assert f"the checkpoint of step {stopped[0]} is committed" in said
    task.await_try(2)
    task.await_text(f"training begins after step {stopped[0]}", try_number=2, seconds=150)
