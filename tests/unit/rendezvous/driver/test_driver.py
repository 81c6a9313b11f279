"""Several drivers in threads on one store in memory: what nodes do together when nothing is wrong
with the store.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from tests.support.memory_rendezvous import RUN, MemoryRendezvous


def test_nodes_agree_on_one_round_and_all_succeed(rendezvous: MemoryRendezvous) -> None:
    nodes = [rendezvous.node(name, min_nodes=4, max_nodes=4, nproc=2) for name in "abcd"]
    rounds = {node.starts() for node in nodes}
    (agreed,) = rounds
    places = [agreed.ranks_of(node) for node in agreed.nodes]
    assert [place.first_rank for place in places] == [0, 2, 4, 6]
    assert {place.world_size for place in places} == {8}
    leader = next(node for node in nodes if agreed.by.startswith(node.name))
    assert (agreed.host, agreed.port) == (leader.ports[0].host, leader.ports[0].port)
    for node in nodes:
        node.succeeds()
    for node in nodes:
        assert node.ends(do.FinishedWell).assignment == agreed
    assert rendezvous.keys(RUN.members) == []
    assert rendezvous.keys(RUN.log) == ["log/000001.marker"]
    assert rendezvous.keys(RUN.reports(agreed.stage)) == []


def test_who_succeeded_waits_for_the_others(rendezvous: MemoryRendezvous) -> None:
    first, second = rendezvous.gang("a", "b")
    first.succeeds()
    assert not first.peek(0.1)
    second.succeeds()
    first.ends(do.FinishedWell)
    second.ends(do.FinishedWell)


def test_a_failure_restarts_every_node_and_is_charged_once(rendezvous: MemoryRendezvous) -> None:
    first, second, third = rendezvous.gang("a", "b", "c", max_restarts=1)
    third.succeeds()
    second.fails()
    again = rendezvous.again(first, second, third)
    assert (again.round, again.restarts) == (2, 1)
    for node in (first, second, third):
        node.succeeds()
    for node in (first, second, third):
        assert node.ends(do.FinishedWell).assignment == again


def test_the_last_failure_ends_the_job_on_all_nodes_with_its_reason(
    rendezvous: MemoryRendezvous,
) -> None:
    first, second = rendezvous.gang("a", "b", max_restarts=0, lease_ttl=0.2)
    second.fails("disk full")
    first.stops()
    for node in (first, second):
        assert "disk full" in node.ends(do.Failed).why


def test_a_failure_that_cannot_be_mended_uses_no_restart(rendezvous: MemoryRendezvous) -> None:
    first, second = rendezvous.gang("a", "b", max_restarts=3)
    second.fails("no such module", fatal=True)
    first.stops()
    assert "no such module" in first.ends(do.Failed).why
    second.ends(do.Failed)


def test_a_newcomer_is_let_in_and_costs_no_restart(rendezvous: MemoryRendezvous) -> None:
    size = {"min_nodes": 1, "max_nodes": 3, "max_restarts": 0}
    first = rendezvous.node("a", **size)
    assert len(first.starts().seats) == 1
    second = rendezvous.node("b", **size)
    assert "came" in first.stops().why
    agreed = rendezvous.again(first, second)
    assert (len(agreed.seats), agreed.round, agreed.restarts) == (2, 2, 0)
    assert [port.closed for port in first.ports] == [True, False]


def test_when_the_leader_dies_the_next_one_leads_and_hosts(rendezvous: MemoryRendezvous) -> None:
    nodes = [
        rendezvous.node(name, min_nodes=2, max_nodes=3, last_call=30, index=index)
        for index, name in enumerate("abc")
    ]
    (agreed,) = {node.starts() for node in nodes}
    leader = next(node for node in nodes if agreed.by.startswith(node.name))
    rest = [node for node in nodes if node is not leader]
    leader.dies()
    for node in rest:
        assert "lost" in node.stops().why
    (again,) = {node.starts() for node in rest}
    assert (len(again.seats), again.round, again.restarts) == (2, 2, 0)
    assert again.by != agreed.by


def test_when_the_leader_dies_before_it_seals_the_others_do(rendezvous: MemoryRendezvous) -> None:
    size = {"min_nodes": 3, "max_nodes": 3}
    nodes = [rendezvous.node(name, **size) for name in "ab"]
    while len(members := rendezvous.keys(RUN.members)) < 2:
        assert not nodes[0].peek(0.01)
    leader = next(node for node in nodes if members[0].startswith(f"members/{node.name}"))
    leader.dies()
    nodes.remove(leader)
    nodes += [rendezvous.node(name, **size) for name in "cd"]
    assert len(rendezvous.again(*nodes).seats) == 3


def test_a_node_whose_session_ended_stops_its_workers_and_comes_back_as_a_new_one(
    rendezvous: MemoryRendezvous,
) -> None:
    nodes = rendezvous.gang("a", "b", max_restarts=0)
    lost = nodes[1]
    assert lost.round is not None
    old = next(seat.node for seat in lost.round.seats if seat.name == lost.name)
    record = rendezvous.ledger.read(RUN.members, deadline=time.monotonic() + 10).get(
        RUN.members + RUN.name(old)
    )
    assert record is not None
    rendezvous.ledger.end_lease(record.lease, deadline=time.monotonic() + 10)
    assert "lease is over" in lost.stops().why
    assert "was lost" in nodes[0].stops().why
    agreed = rendezvous.again(*nodes)
    assert old not in agreed.nodes
    assert {seat.name for seat in agreed.seats} == {"a", "b"}
    assert agreed.restarts == 0


def test_an_order_to_stop_the_job_reaches_every_node(rendezvous: MemoryRendezvous) -> None:
    nodes = rendezvous.gang("a", "b", "c")
    nodes[2].tell(see.EndRequested("enough", stop=True))
    for node in nodes:
        node.stops()
    for node in nodes:
        assert "enough" in node.ends(do.Stopped).why
    assert rendezvous.keys(RUN.members) == []


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_a_node_leaves_also_if_its_agent_never_obeyed_its_last_order(
    rendezvous: MemoryRendezvous, taken: bool
) -> None:
    first, second = (rendezvous.node(name, min_nodes=1, max_nodes=2, last_call=30) for name in "ab")
    first.starts()
    assert second.peek(10)
    if taken:
        second.starts()
    assert second.driver.leave(see.EndRequested("gone", stop=False), time.monotonic() + 10)
    first.stops()
    assert len(first.starts().seats) == 1


def test_leaving_does_not_start_what_was_never_started(rendezvous: MemoryRendezvous) -> None:
    node = rendezvous.node("a", min_nodes=1, max_nodes=1, start=False)
    assert node.driver.leave(see.EndRequested("gone", stop=False), time.monotonic() + 10)
    assert node.driver.close(time.monotonic())


def test_the_last_one_that_leaves_closes_the_generation(rendezvous: MemoryRendezvous) -> None:
    first, second = rendezvous.gang("a", "b", min_nodes=1, max_restarts=None, last_call=30)
    asked = see.EndRequested("done", stop=False, linger=5.0)
    for node in (first, second):
        node.tell(asked)
        node.stops()
    for node in (first, second):
        node.ends(do.Left)
    assert rendezvous.keys(RUN.log) == ["log/000001.marker"]
    again = rendezvous.node("c", min_nodes=1, max_nodes=1)
    assert again.starts().generation == 2


def test_a_job_of_many_rounds_leaves_one_marker(rendezvous: MemoryRendezvous) -> None:
    (node,) = rendezvous.gang("a", max_restarts=None)
    for _ in range(70):
        node.fails()
        node.starts()
    assert len(rendezvous.keys(RUN.log)) <= 4
    node.succeeds()
    node.ends(do.FinishedWell)
    assert rendezvous.keys(RUN.log) == ["log/000001.marker"]
    assert rendezvous.keys(RUN.reports(node.round.stage)) == []


@pytest.mark.parametrize("why", ["success", "failure", "stop"])
def test_of_a_run_that_nobody_else_knows_nothing_is_left(
    rendezvous: MemoryRendezvous, why: str
) -> None:
    before = set(rendezvous.store.leases)
    (node,) = rendezvous.gang("a", max_restarts=0, unique_run=True)
    match why:
        case "success":
            node.succeeds()
            node.ends(do.FinishedWell)
        case "failure":
            node.fails()
            node.ends(do.Failed)
        case _:
            node.tell(see.EndRequested("enough", stop=True))
            node.stops()
            node.ends(do.Stopped)
    assert rendezvous.keys(RUN.log) + rendezvous.keys(RUN.members) == []
    assert set(rendezvous.store.leases) == before


def test_lives_of_one_run_leave_one_marker_and_one_lease(rendezvous: MemoryRendezvous) -> None:
    before = set(rendezvous.store.leases)
    for life in range(5):
        (node,) = rendezvous.gang("a")
        assert node.round.generation == life + 1
        node.succeeds()
        node.ends(do.FinishedWell)
    assert rendezvous.keys(RUN.log) == ["log/000005.marker"]
    assert len(set(rendezvous.store.leases) - before) == 1


def test_who_waits_does_nothing(rendezvous: MemoryRendezvous) -> None:
    nodes = [rendezvous.node(name, min_nodes=3, max_nodes=3) for name in "ab"]

    def work() -> bool:
        """Whether they have anything to do within half a second."""
        before = [_switches(node.driver) for node in nodes]
        assert not nodes[0].peek(0.5)
        return [_switches(node.driver) for node in nodes] != before

    assert not nodes[0].peek(0.1)
    deadline = time.monotonic() + 10
    while len(rendezvous.keys(RUN.members)) < 2 or work():  # until both know that they wait
        assert time.monotonic() < deadline


def _switches(driver: object) -> int:
    """How often the driver's thread has gone to sleep."""
    thread = driver._thread
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("voluntary"))
    return int(line.split()[1])
