"""What becomes of jobs when their store is killed, frozen, forgetful, or loses its leader."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.rendezvous.conftest import MakeJob
from tests.integration.rendezvous.jobs import TTL, Agent, Job, kept_values, until
from tests.support.etcd_servers import EtcdServer
from tests.support.proxy import Proxy, proxy
from tests.support.store_history import read_history
from tests.support.stores import (
    DURABLE_STORES,
    SERVED,
    STORES,
    Server,
    Store,
    leader_first,
    on_stores,
)

pytestmark = [pytest.mark.launch, pytest.mark.fault]
_ON_STORES = pytest.mark.parametrize("store", STORES)
# What was written has to outlive the server, which a served ledger does not promise.
_ON_DURABLE_STORES = pytest.mark.parametrize("store", DURABLE_STORES)

_PAIR = {"min_nodes": 2, "max_nodes": 3}


@pytest.fixture
def server(own_server: Server) -> Server:
    """A server that a test may harm."""
    return own_server


@pytest.fixture
def forgetful(store: Store) -> Iterator[Server]:
    """A server whose history cannot be looked at in the end."""
    with store.start() as server:
        yield server


@pytest.fixture
def members(store: Store) -> Iterator[list[Server]]:
    """Three members of one store, the leader first."""
    with store.start_members() as members:
        yield leader_first(members)


def _say(agent: Agent, text: str) -> None:
    until(f"{agent.name} to say {text!r}", lambda: text in agent.told)


def _train(job: Job, *names: str) -> list[int]:
    """Two nodes or more that train; the pids of their workers."""
    for name in names:
        job.node(name, **_PAIR)
    return [one["pid"] for one in job.runs(*names)]


def _finish(job: Job) -> None:
    job.succeed()
    for agent in job.agents:
        agent.ends()


@_ON_DURABLE_STORES
def test_nodes_that_wait_go_on_when_the_store_was_killed_and_comes_back(
    job: Job, server: Server
) -> None:
    first = job.node("a", **_PAIR)
    job.members(1)
    server.kill()
    _say(first, "is suspended")
    second = job.node("b", **_PAIR)
    _say(second, "the ledger does not answer")
    server.start()
    job.runs("a", "b")
    _finish(job)


@_ON_DURABLE_STORES
def test_training_goes_on_while_the_store_is_away_and_only_the_next_change_waits_for_it(
    job: Job, server: Server
) -> None:
    pids = _train(job, "a", "b")
    server.kill()
    for agent in job.agents:
        _say(agent, "is suspended")
    late = job.node("c", **_PAIR)
    _say(late, "the ledger does not answer")
    assert {one["pid"] for one in job.workers()} == set(pids)
    server.start()
    assert len(job.runs("a", "b", "c", restarts=0)) == 3
    _finish(job)
    assert [one.round for one in read_history(server).assignments] == [1, 2]


@_ON_DURABLE_STORES
def test_a_result_waits_for_a_store_that_is_away(job: Job, server: Server) -> None:
    _train(job, "a", "b")
    server.kill()
    job.succeed()
    for agent in job.agents:
        _say(agent, "the ledger does not answer")
    server.start()
    for agent in job.agents:
        assert len(agent.ends()["values"]) == 1


@_ON_DURABLE_STORES
def test_beside_a_store_that_never_comes_back_each_node_tells_in_time_what_it_knows(
    make_job: MakeJob, forgetful: Server
) -> None:
    job = make_job(forgetful.endpoint, rdzv_configs={"timeout": 4}, max_restarts=0, **_PAIR)
    failing, succeeding = (job.node(name, function=True) for name in "ab")
    job.runs("a", "b")
    forgetful.kill()
    job.fail("a")
    job.succeed("b")
    late = job.node("c")
    no_answer = "the ledger did not answer for 4 s"
    told = failing.ends("WorkersFailed")["text"]
    assert ": ValueError: no such digit: 1" in told
    assert "Traceback" in told
    assert "failure class: user code" in told
    assert f"besides, run 'job': {no_answer}" in told
    for agent in (succeeding, late):
        end = agent.ends("RendezvousError")
        assert no_answer in end["text"]
        assert "the ledger's last error: " in end["text"]
        assert end["retryable"]
    assert [*kept_values(succeeding).values()] == [{"answer": 42}]
    assert late.ends("RendezvousError")["seconds"] < 4 + 2 * TTL + 15


@_ON_STORES
def test_a_frozen_store_stops_no_training_and_what_it_says_then_counts(
    job: Job, server: Server
) -> None:
    _train(job, "a", "b")
    with server.frozen():
        for agent in job.agents:
            _say(agent, "is suspended")
    job.node("c", **_PAIR)
    job.runs("a", "b", "c", restarts=0)
    _finish(job)


@_ON_STORES
def test_nodes_that_wait_for_a_frozen_store_give_up_in_time(
    make_job: MakeJob, forgetful: Server
) -> None:
    job = make_job(forgetful.endpoint, rdzv_configs={"timeout": 4}, **_PAIR)
    waiting = job.node("a")
    job.members(1)
    with forgetful.frozen():
        job.node("b")
        for agent in job.agents:
            end = agent.ends("RendezvousError")
            assert "the ledger did not answer for 4 s" in end["text"]
            assert ("and never has" in end["text"]) == (agent is not waiting)
            assert "; the ledger's last error: " in end["text"]
            assert end["seconds"] < 4 + 2 * TTL + 15 or agent is waiting


@on_stores("moment", ("waiting",), ("training",))
def test_what_came_while_a_node_was_cut_off_is_not_missed_though_the_store_forgot_it(
    make_job: MakeJob, forgetful: Server, moment: str
) -> None:
    """A served ledger's watches and ZooKeeper's never know what came and went; etcd is told to
    forget it.
    """
    with proxy(forgetful.port) as network:
        _happen_behind(make_job(forgetful.endpoint), network, forgetful, moment)


def _happen_behind(job: Job, network: Proxy, server: Server, moment: str) -> None:
    three = {"min_nodes": 2 if moment == "training" else 3, "max_nodes": 3}
    job.node("far", **three, rdzv_endpoint=str(network.endpoint))
    if moment == "training":
        job.node("near", **three)
        job.runs("far", "near")
    job.members(len(job.agents))
    network.cut()
    job.node("another", **three)
    job.members(len(job.agents))
    if isinstance(server, EtcdServer):
        server.compact()
    network.mend()
    if moment == "waiting":
        job.node("near", **three)
    job.runs("far", "near", "another", restarts=0)
    _finish(job)


@_ON_DURABLE_STORES
@pytest.mark.parametrize("moment", ["waiting", "training"])
def test_the_death_of_the_stores_leader_costs_nothing_but_a_moment(
    make_job: MakeJob, members: list[Server], moment: str
) -> None:
    job = make_job(*(member.endpoint for member in members), **_PAIR)
    job.node("a")
    job.members(1)
    if moment == "waiting":
        members[0].kill()
        job.node("b")
        job.runs("a", "b")
    else:
        job.node("b")
        job.runs("a", "b")
        members[0].kill()
        job.node("c")
        job.runs("a", "b", "c", restarts=0)
    _finish(job)
    history = read_history(members[1])
    history.check()
    assert len(history.assignments) == (1 if moment == "waiting" else 2)


@pytest.mark.parametrize("store", [SERVED], ids=str)
def test_nobody_waits_for_a_served_ledger_that_has_gone_and_workers_run_on(
    make_job: MakeJob, forgetful: Server
) -> None:
    job = make_job(forgetful.endpoint, min_nodes=2, max_nodes=2)
    failing, succeeding = (job.node(name, function=True) for name in "ab")
    job.runs("a", "b")
    waiting = job.node("c", function=True)
    job.members(3)
    forgetful.kill()
    assert "the ledger has gone for good" in waiting.ends("ServerLostError")["text"]
    job.fail("a")
    text = failing.ends("WorkersFailed")["text"]
    assert "ValueError: no such digit" in text
    assert "the ledger has gone for good" in text
    assert len(job.workers(node="b")) == 1
    job.succeed("b")
    (kept,) = kept_values(succeeding, "ServerLostError").values()
    assert kept == {"answer": 42}
