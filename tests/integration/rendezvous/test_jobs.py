"""Jobs of several nodes that meet through a real store, when nodes come, fail and die."""

from __future__ import annotations

import pytest

from tests.integration.rendezvous.jobs import Job
from tests.support.store_history import ServerPart, read_history
from tests.support.stores import STORES

pytestmark = [pytest.mark.launch, pytest.mark.parametrize("store", STORES)]


def test_a_late_node_joins_and_every_worker_sees_the_new_world(job: Job) -> None:
    early = [job.node(name, gloo=True, min_nodes=2) for name in "ab"]
    assert {one["total"] for one in job.runs("a", "b")} == {4.0}
    late = job.node("c", gloo=True, min_nodes=2)
    crew = job.runs("a", "b", "c")
    assert {(one["world"], one["total"], one["restarts"]) for one in crew} == {(6, 6.0, 0)}
    job.succeed()
    values = [agent.ends()["values"] for agent in (*early, late)]
    assert sorted(int(rank) for one in values for rank in one) == [0, 1, 2, 3, 4, 5]
    assert {value for one in values for value in one.values()} == {6.0}


@pytest.mark.fault
def test_when_an_agent_is_killed_the_rest_go_on_with_fewer_nodes(
    job: Job, server: ServerPart
) -> None:
    agents = [job.node(name, gloo=True, min_nodes=2, max_nodes=3, max_restarts=0) for name in "abc"]
    job.runs("a", "b", "c")
    agents[1].kill()
    crew = job.runs("a", "c")
    assert {(one["total"], one["restarts"]) for one in crew} == {(4.0, 0)}
    job.succeed()
    for agent in (agents[0], agents[2]):
        assert set(agent.ends()["values"].values()) == {4.0}
    assert [len(one.seats) for one in read_history(server).assignments] == [3, 2]
