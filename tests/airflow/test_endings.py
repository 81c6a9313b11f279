"""Jobs that somebody ends: whoever it is, no process of theirs is left, and in time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]  # psutil ships no types
import pytest

from tests.airflow.client import Client, Run
from tests.airflow.conftest import Trial, await_nothing_left, let_go
from tests.airflow.server import Airflow

pytestmark = pytest.mark.airflow

_HEARTBEAT = 5.0  # seconds after which a task learns at the latest that Airflow wants it to end
_SLACK = 15.0  # seconds that a busy machine may take for everything else


@pytest.fixture(scope="module")
def endless(client: Client, trial: Trial) -> dict[str, Run]:
    """A run of each DAG whose job never ends by itself, started together.

    These tests mostly wait. ``trial``, which others look at later, goes on meanwhile.
    """
    names = ("obedient", "stubborn", "overdue", "bereft", "forgotten")
    client.await_dags(*names, "saving")
    runs = {name: client.trigger(name) for name in names}
    return runs | {name: client.trigger("saving") for name in ("evicted", "cleared")}


def _running(run: Run) -> Run:
    run.task("job").await_text("everything runs", seconds=150)
    return run


def test_job_marked_failed_is_gone_ten_seconds_after_the_heartbeat(
    endless: dict[str, Run], server: Airflow
) -> None:
    run = _running(endless["obedient"])
    assert server.processes(AIRFLOW_CTX_DAG_RUN_ID=run.run_id)
    run.task("job").mark("failed")
    await_nothing_left(server, run, seconds=_HEARTBEAT + 10)
    run.finish("failed")


def test_job_that_does_not_end_when_asked_is_killed_after_its_grace_period(
    endless: dict[str, Run], server: Airflow
) -> None:
    run = _running(endless["stubborn"])
    run.task("job").mark("failed")
    started = time.monotonic()
    await_nothing_left(server, run, seconds=_HEARTBEAT + 6 + _SLACK)
    assert time.monotonic() - started > 5  # it had its grace period
    run.finish("failed")


def test_execution_timeout_ends_the_job(endless: dict[str, Run], server: Airflow) -> None:
    run = endless["overdue"].finish("failed")
    await_nothing_left(server, run, seconds=_SLACK)
    assert "AirflowTaskTimeout" in run.task("job").text()


def test_job_whose_task_process_is_killed_is_ended_and_its_last_words_are_in_the_next_try(
    endless: dict[str, Run], server: Airflow
) -> None:
    run, other = _running(endless["bereft"]), _running(endless["evicted"])
    task = run.task("job")
    os.kill(task.facts()["pid"], signal.SIGKILL)
    # For the next test, which looks at what follows: the supervisor of a task, as an executor's
    # worker has it.
    psutil.Process(other.task("job").facts()["pid"]).parent().terminate()
    task.await_try(2)
    task.await_text("the agent of an earlier try (try 1, pid ", try_number=2)
    let_go(run, server)
    run.finish("success", seconds=150)
    assert task.facts()["try_number"] == 2
    assert task.xcoms()["return_value"] == {"0": "the second try"}
    assert "saved after the task was gone" not in task.text(try_number=1)
    text = task.text(try_number=2)
    assert "saved after the task was gone" in text
    assert "the agent of the earlier try has ended after" in text, "it did not have to use force"
    assert (
        "infrastructure (the task process of try 1 was lost: by SIGKILL, and not for lack of "
        "memory): tried again by this try" in text
    )
    await_nothing_left(server, run, seconds=_SLACK)


@pytest.fixture(scope="module")
def disturbed(endless: dict[str, Run]) -> Iterator[dict[str, psutil.Process]]:
    """The task processes of three jobs to whose first tries this happens, at the same time.

    The process above one task, which is Airflow's, gets a SIGTERM; one task is cleared; and the
    process above the third is frozen, so that it does not hear that Airflow has given its task up,
    as where heartbeats are lost.
    """
    found, above = {}, {}
    for name in ("evicted", "cleared", "forgotten"):
        found[name] = psutil.Process(_running(endless[name]).task("job").facts()["pid"])
        above[name] = found[name].parent()
    above["evicted"].terminate()
    endless["cleared"].task("job").clear()
    above["forgotten"].suspend()
    try:
        endless["forgotten"].task("job").mark("failed")
        # Airflow leaves the state of a run that still goes on as it is when a task is cleared. The
        # scheduler may be about to write that the run has failed: then nobody starts the task.
        endless["forgotten"].finish("failed")
        endless["forgotten"].task("job").clear()
        yield found
    finally:
        above["forgotten"].resume()


@pytest.mark.usefixtures("disturbed")
def test_a_sigterm_to_the_airflow_worker_leaves_the_job_its_grace_period(
    endless: dict[str, Run], server: Airflow
) -> None:
    run = endless["evicted"]
    task = run.task("job")
    let_go(run, server)
    run.finish("success", seconds=150)
    first = task.text(try_number=1)
    assert "checkpoint saved" in first  # seven seconds later: there was no SIGKILL
    assert "Airflow asked the task to end" in first
    (reason,) = [record["reason"] for record in task.log(try_number=1) if "reason" in record]
    assert reason.startswith("preemption (the job was stopped: Airflow asked the task to end)")
    assert task.xcoms()["return_value"] == {"0": "the second try"}
    await_nothing_left(server, run, seconds=_SLACK)


def test_the_next_try_waits_until_the_agent_of_a_killed_task_has_saved(
    endless: dict[str, Run], disturbed: dict[str, psutil.Process], server: Airflow
) -> None:
    run = endless["cleared"]
    task = run.task("job")
    disturbed["cleared"].wait(timeout=_HEARTBEAT + 5 + 2 * _SLACK)  # SIGTERM, then SIGKILL
    task.await_try(2)
    task.await_text("the agent of an earlier try (try 1, pid ", try_number=2)
    assert "launching" not in task.text(try_number=2)
    let_go(run, server)
    run.finish("success", seconds=150)
    assert "checkpoint saved" not in task.text(try_number=1)
    waited, launched, _ = task.text(try_number=2).partition("launching")
    assert launched
    assert "checkpoint saved" in waited
    assert task.xcoms()["return_value"] == {"0": "the second try"}
    await_nothing_left(server, run, seconds=_SLACK)


def test_a_try_that_works_on_though_airflow_has_given_it_up_is_ended_by_the_next_one(
    endless: dict[str, Run], disturbed: dict[str, psutil.Process], server: Airflow
) -> None:
    run = endless["forgotten"]
    task = run.task("job")
    run.finish("success", seconds=150)
    assert task.facts()["try_number"] == 2
    text = task.text(try_number=2)
    killed = f"it, its task (pid {disturbed['forgotten'].pid}) and all processes of its job"
    assert killed in text
    assert task.xcoms()["return_value"] == {"0": "the second try"}
    await_nothing_left(server, run, seconds=_SLACK)
