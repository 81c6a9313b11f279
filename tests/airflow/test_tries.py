"""Tries that are left and not used, since the failure says that they would be in vain."""

from __future__ import annotations

import socket

import pytest

from tests.airflow.client import Run, Task

pytestmark = [pytest.mark.airflow, pytest.mark.parametrize("run", ["tries"], indirect=True)]


def _reasons(task: Task, try_number: int) -> list[str]:
    """What the retry policy has decided, as it stands in the log."""
    return [record["reason"] for record in task.log(try_number) if "reason" in record]


def test_lack_of_memory_is_tried_once_more(run: Run) -> None:
    task = run.task("devours")
    facts = task.facts()
    assert (facts["state"], facts["try_number"], facts["max_tries"]) == ("failed", 2, 3)
    (first,), (last,) = _reasons(task, 1), _reasons(task, 2)
    assert (
        "MemoryError: no room for the batch): tried again in 1 s: retry 1 of 1 of its class"
        in first
    )
    assert "not tried again: all retries of its class (1) are used up" in last


def test_the_same_traceback_twice_before_any_progress_is_not_tried_again(run: Run) -> None:
    task = run.task("repeats")
    facts = task.facts()
    assert (facts["state"], facts["try_number"], facts["max_tries"]) == ("failed", 2, 3)
    (first,), (last,) = _reasons(task, 1), _reasons(task, 2)
    assert "tried again after the task's retry_delay: retry 1 of its class" in first
    assert "not tried again: the same traceback 2 times in a row" in last


def test_callbacks_see_what_is_known_of_the_failure(run: Run) -> None:
    repeats, devours = run.task("repeats"), run.task("devours")
    found = repeats.xcoms()["failure"]
    assert found["trace"].startswith("Traceback (most recent call last):")
    assert "in repeats" in found["trace"]
    assert found["reason"].startswith("ValueError: no data at <object object at 0x")
    assert {name: found[name] for name in ("class", "rank", "node", "host", "step")} == {
        "class": "user code",
        "rank": 0,
        "node": "node 0",
        "host": socket.gethostname(),
        "step": 0,
    }
    assert devours.xcoms()["failure"]["class"] == "out of memory"
    assert devours.xcoms()["failure"]["step"] == 3
    text = devours.text(try_number=1)
    assert "to be retried: out of memory, MemoryError: no room for the batch" in text
