"""Mistakes: each gives one readable error, is not retried where a retry cannot help, and leaves
nothing.
"""

from __future__ import annotations

import pytest

from tests.airflow.client import Client, Run, wait
from tests.airflow.conftest import await_nothing_left
from tests.airflow.dags.mistakes import MISTAKES
from tests.airflow.server import Airflow

pytestmark = pytest.mark.airflow

_FUNCTIONS = {
    "asks_for_the_task_instance": ("'ti'", "task's own process"),
    "holds_a_lock": ("holds_a_lock", "closure variable 'lock'"),
    "two_for_one": ("takes_one(", "too many positional arguments"),
}


@pytest.mark.parametrize("run", ["bad_input"], indirect=True)
@pytest.mark.parametrize("task_id", [*MISTAKES, *_FUNCTIONS])
def test_task_fails_with_an_error_that_says_what_is_wrong(run: Run, task_id: str) -> None:
    task = run.task(task_id)
    mistake = MISTAKES.get(task_id)
    tries = mistake.tries if mistake else 1
    facts = task.facts()
    assert (facts["state"], facts["try_number"]) == ("failed", tries), task.text()
    words = mistake.words if mistake else _FUNCTIONS[task_id]
    errors = [
        f"{error['exc_type']}: {error['exc_value']}"
        for record in task.log()
        for error in record.get("error_detail") or []
    ]
    assert any(all(word in error for word in words) for error in errors), task.text()
    note = task.stored()["elastic"]
    assert (note["doing"], note["succeeded"]) == ("ended", False)
    assert all(word in note["failure"]["report"] for word in words), note


@pytest.mark.parametrize("run", ["bad_input"], indirect=True)
def test_no_process_of_a_mistaken_job_is_left(run: Run, server: Airflow) -> None:
    await_nothing_left(server, run, seconds=10)


def _import_error(client: Client, name: str) -> str:
    def found() -> str | None:
        return next(
            (text for file, text in client.import_errors().items() if file.endswith(name)), None
        )

    return wait(f"an import error of {name}", 60, found, lambda: str(client.import_errors()))


def test_what_is_known_when_the_file_is_parsed_is_told_then_and_all_at_once(client: Client) -> None:
    text = _import_error(client, "refused.py")
    for words in (
        "4 things are wrong",
        "max_nodes is 2",
        "nproc_per_node is 0",
        "pigeon",
        "teleport",
    ):
        assert words in text


def test_multiple_outputs_are_refused(client: Client) -> None:
    assert "multiple_outputs" in _import_error(client, "refused_outputs.py")
