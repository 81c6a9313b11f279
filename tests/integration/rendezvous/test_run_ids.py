"""A run id that is used again, and several on one store."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest

from tests.integration.rendezvous.conftest import MakeJob
from tests.integration.rendezvous.jobs import Job, until
from tests.support.store_history import ServerPart, left_in, read_history
from tests.support.stores import DURABLE_STORES, STORES, on_stores

pytestmark = pytest.mark.launch
_ON_STORES = pytest.mark.parametrize("store", STORES)


def _succeed_once(job: Job, **config: object) -> None:
    first = job.node("first", max_nodes=1, **config)
    job.runs("first")
    job.succeed()
    assert first.ends()["values"] == {"0": None}


def _generations(server: ServerPart) -> list[tuple[int, int, int]]:
    return [(*one.stage, one.restarts) for one in read_history(server).assignments]


@on_stores("token next_token", ("", ""), ("", "x"), ("x", ""), ("x", "y"))
def test_after_success_another_token_or_none_runs_the_job_again(
    job: Job, server: ServerPart, token: str, next_token: str
) -> None:
    _succeed_once(job, rerun_token=token)
    job.again()
    second = job.node("second", max_nodes=1, rerun_token=next_token)
    job.runs("second")
    job.succeed()
    assert second.ends()["values"] == {"0": None}
    assert _generations(server) == [(1, 1, 0), (2, 1, 0)]


@_ON_STORES
def test_after_success_a_late_node_of_the_same_token_ends_with_an_empty_result(
    job: Job, server: ServerPart
) -> None:
    _succeed_once(job, rerun_token="x")
    late = job.node("late", rerun_token="x")
    assert late.ends()["values"] == {}
    assert "nothing left to do" in late.process.output.read_text()
    assert _generations(server) == [(1, 1, 0)]


@_ON_STORES
def test_values_that_were_lost_with_an_earlier_launch_of_a_node_are_no_empty_success(
    job: Job,
) -> None:
    config: dict[str, Any] = {"function": True, "rerun_token": "x", "min_nodes": 2, "max_nodes": 2}
    stopped, other = (job.node(name, node_label=name, **config) for name in ("b", "a"))
    job.runs("a", "b")
    job.succeed("b")
    until("the report of b", lambda: len(job.records("reports/000001.000001")) == 1)
    stopped.process.signal(signal.SIGTERM)
    stopped.ends("SignalException")
    assert re.search(r"what rank \d returned: it is kept", stopped.told)
    job.succeed("a")
    assert len(other.ends()["values"]) == 1
    again = job.node("again", node_label="b", **config)
    assert "had ranks in that job" in again.ends("ResultError")["text"]


@on_stores("token", ("",), ("x",))
def test_who_waits_while_the_job_succeeds_ends_with_an_empty_result(job: Job, token: str) -> None:
    first = job.node("first", max_nodes=1, rerun_token=token)
    job.runs("first")
    waiting = job.node("waiting", max_nodes=1, rerun_token=token)
    job.members(2)
    job.succeed()
    assert first.ends()["values"] == {"0": None}
    assert waiting.ends()["values"] == {}


@on_stores("token", ("",), ("x",))
def test_after_a_failure_the_job_runs_again_with_a_fresh_budget(
    job: Job, server: ServerPart, token: str
) -> None:
    config = {"max_nodes": 1, "max_restarts": 1, "rerun_token": token}
    first = job.node("first", **config)
    job.runs("first")
    job.fail("first")
    job.runs("first", restarts=1)
    job.fail("first")
    first.ends("WorkersFailed")
    job.again()
    second = job.node("second", **config)
    job.runs("second", restarts=0)
    job.succeed()
    second.ends()
    assert _generations(server) == [(1, 1, 0), (1, 2, 1), (2, 1, 0)]


@pytest.mark.fault
@on_stores("token", ("",), ("x",))
def test_after_all_nodes_were_killed_the_job_goes_on_at_its_next_round(
    job: Job, server: ServerPart, token: str
) -> None:
    config = {"max_nodes": 1, "max_restarts": 1, "rerun_token": token}
    first = job.node("first", **config)
    job.runs("first")
    job.fail("first")
    job.runs("first", restarts=1)
    first.kill()
    second = job.node("second", **config)
    job.runs("second", restarts=0)
    job.succeed()
    second.ends()
    assert _generations(server) == [(1, 1, 0), (1, 2, 1), (1, 3, 0)]


@pytest.mark.parametrize("store", DURABLE_STORES)  # a served ledger is one job's
def test_two_jobs_on_one_store_never_see_each_other(make_job: MakeJob, server: ServerPart) -> None:
    size = {"min_nodes": 2, "max_nodes": 2}
    jobs = [
        make_job(run_id="one", namespace=f"{server.namespace}/blue", **size),
        make_job(run_id="one", namespace=f"{server.namespace}/blue/green", **size),
        make_job(run_id="one.more", namespace=f"{server.namespace}/blue", **size),
    ]
    for name in "ab":
        for job in jobs:
            job.node(name)
    crews = [job.runs("a", "b") for job in jobs]
    assert len({one["store"] for crew in crews for one in crew}) == 3
    jobs[0].succeed()
    for agent in jobs[0].agents:
        agent.ends()
    assert all(agent.process.alive for job in jobs[1:] for agent in job.agents)
    for job in jobs[1:]:
        job.succeed()
        for agent in job.agents:
            agent.ends()
    assert all(len(one.seats) == 2 for one in read_history(server).assignments)


@_ON_STORES
def test_after_a_job_only_the_marker_of_its_generation_is_left_and_for_a_day_at_most(
    job: Job, server: ServerPart
) -> None:
    for name in "ab":
        job.node(name, min_nodes=2, max_nodes=2)
    job.runs("a", "b")
    job.fail("a")
    job.runs("a", "b", restarts=1)
    job.succeed()
    for agent in job.agents:
        agent.ends()
    ((key, value, ttl),) = left_in(server)
    assert key.endswith("/log/000001.marker")
    assert len(value) < 600
    assert 86000 < ttl <= 86400


@_ON_STORES
@pytest.mark.fault
def test_after_all_nodes_were_killed_nothing_is_left_for_longer_than_a_day(
    job: Job, server: ServerPart
) -> None:
    for name in "ab":
        job.node(name, min_nodes=2, max_nodes=2)
    job.runs("a", "b")
    for agent in job.agents:
        agent.kill()
    until(
        "no member is left",
        lambda: not any("/members/" in key for key, _, _ in left_in(server)),
    )
    left = left_in(server)
    assert [key.rpartition("/")[2] for key, _, _ in left] == ["000001.000001.assignment"]
    assert all(0 < ttl <= 86400 for _, _, ttl in left)
