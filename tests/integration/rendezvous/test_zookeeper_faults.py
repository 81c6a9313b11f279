"""What becomes of jobs when their ZooKeeper is killed, frozen, or loses its leader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.rendezvous.conftest import MakeJob
from tests.integration.rendezvous.history import read_history
from tests.integration.rendezvous.jobs import Agent, Job, until
from tests.zookeepers import ZooKeeperServer, zookeeper_ensemble

pytestmark = [
    pytest.mark.zookeeper,
    pytest.mark.launch,
    pytest.mark.fault,
    pytest.mark.parametrize("store", ["zookeeper"]),
]

_PAIR = {"min_nodes": 2, "max_nodes": 3}


def _say(agent: Agent, text: str) -> None:
    until(f"{agent.name} to say {text!r}", lambda: text in agent.told)


def _finish(job: Job) -> None:
    job.succeed()
    for agent in job.agents:
        agent.ends()


def test_training_goes_on_while_zookeeper_is_away_and_only_the_next_change_waits_for_it(
    job: Job, server: ZooKeeperServer
) -> None:
    for name in "ab":
        job.node(name, **_PAIR)
    pids = {one["pid"] for one in job.runs("a", "b")}
    server.kill()
    for agent in job.agents:
        _say(agent, "is suspended")
    late = job.node("c", **_PAIR)
    _say(late, "the ledger does not answer")
    assert {one["pid"] for one in job.workers()} == pids
    server.start()
    assert len(job.runs("a", "b", "c", restarts=0)) == 3
    _finish(job)
    assert [one.round for one in read_history(server).assignments] == [1, 2]


def test_a_frozen_zookeeper_stops_no_training_and_what_it_says_then_counts(
    job: Job, server: ZooKeeperServer
) -> None:
    for name in "ab":
        job.node(name, **_PAIR)
    job.runs("a", "b")
    with server.frozen():
        for agent in job.agents:
            _say(agent, "is suspended")
    job.node("c", **_PAIR)
    job.runs("a", "b", "c", restarts=0)
    _finish(job)


def test_the_death_of_an_ensembles_leader_costs_nothing_but_a_moment(
    make_job: MakeJob, temporary: Path, store: str
) -> None:
    with zookeeper_ensemble() as members:
        leader = until("a leader", lambda: [one for one in members if one.is_leader()])[0]
        endpoints = [member.endpoint for member in members]
        job = make_job(*endpoints, rdzv_backend="zeus-adapter", **_PAIR)
        for name in "ab":
            job.node(name)
        job.runs("a", "b")
        leader.kill()
        job.node("c")
        job.runs("a", "b", "c", restarts=0)
        _finish(job)
        history = read_history(next(one for one in members if one is not leader))
        history.check()
        assert len(history.assignments) == 2
