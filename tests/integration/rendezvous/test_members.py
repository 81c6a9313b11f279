"""Who is in a round when leaders die early, nodes freeze, fail, and stop; workers here cost
nothing.
"""

from __future__ import annotations

import signal

import pytest

from tests.integration.rendezvous.jobs import Job, until
from tests.support.store_history import ServerPart, read_history
from tests.support.stores import STORES, on_stores

pytestmark = [pytest.mark.launch, pytest.mark.fault]
_ON_STORES = pytest.mark.parametrize("store", STORES)


@_ON_STORES
def test_a_leader_that_is_killed_between_joining_and_sealing_is_succeeded(
    job: Job, server: ServerPart
) -> None:
    size = {"min_nodes": 3, "max_nodes": 3}
    for name in "ab":
        job.node(name, **size)
    leader, follower = job.members(2)
    leader.kill()
    for name in "cd":
        job.node(name, **size)
    job.runs(follower.name, "c", "d")
    job.succeed()
    for agent in job.agents:
        if agent is not leader:
            agent.ends()
    (only,) = read_history(server).assignments
    assert str(leader.process.pid) not in " ".join(only.nodes)


@on_stores("role", ("leader",), ("follower",))
def test_a_node_frozen_beyond_its_lease_comes_back_as_a_new_one(
    job: Job, server: ServerPart, role: str
) -> None:
    size = {"min_nodes": 1, "max_nodes": 2, "max_restarts": 0}
    for name in "ab":
        job.node(name, **size, rdzv_configs={"last_call_timeout": 60})
    members = job.members(2)
    job.runs("a", "b")
    frozen, other = members if role == "leader" else members[::-1]
    frozen.freeze()
    job.runs(other.name)
    frozen.thaw()
    crew = job.runs("a", "b", after=3)
    assert {one["restarts"] for one in crew} == {0}
    job.succeed()
    for agent in (frozen, other):
        agent.ends()
    history = read_history(server)
    mine = next(nodes for name, nodes in history.names.items() if f"-{frozen.process.pid}-" in name)
    old, new = mine
    assert [(old in one.nodes, new in one.nodes) for one in history.assignments] == [
        (True, False),
        (False, False),
        (False, True),
    ]


@_ON_STORES
def test_a_failure_on_one_node_restarts_all_and_the_budget_is_the_jobs(job: Job) -> None:
    size = {"min_nodes": 2, "max_nodes": 2, "max_restarts": 1}
    agents = [job.node(name, **size) for name in "ab"]
    job.runs("a", "b", restarts=0)
    job.fail("b")
    job.runs("a", "b", restarts=1)
    job.fail("a")
    for agent in agents:
        assert "exit code 1" in agent.ends("WorkersFailed")["text"]


@_ON_STORES
def test_a_node_that_is_told_to_stop_leaves_at_once_and_the_others_go_on(job: Job) -> None:
    for name in "ab":
        job.node(name, min_nodes=1, max_nodes=2, rdzv_configs={"last_call_timeout": 60})
    job.runs("a", "b")
    stopped, other = job.agents
    stopped.process.signal(signal.SIGTERM)
    job.runs(other.name)
    stopped.ends("SignalException")
    assert len(job.members(1)) == 1
    job.succeed()
    other.ends()


@_ON_STORES
def test_a_node_that_is_told_to_stop_while_it_waits_leaves_no_record(job: Job) -> None:
    waiting = job.node("a", min_nodes=2)
    job.members(1)
    waiting.process.signal(signal.SIGTERM)
    waiting.ends("SignalException")
    assert job.records("members") == ()


@_ON_STORES
def test_nodes_that_nobody_joins_give_up_in_time_and_say_who_was_there(job: Job) -> None:
    first = job.node("a", min_nodes=3, rdzv_configs={"timeout": 6})
    job.members(1)
    second = job.node("b", min_nodes=3, rdzv_configs={"timeout": 6})
    ends = [agent.ends("RendezvousTimeoutError") for agent in (first, second)]
    assert all(6 <= end["seconds"] < 30 and end["retryable"] for end in ends)
    assert "2 of 3 nodes are ready" in ends[0]["text"]
    until("no member is left", lambda: not job.records("members"))
