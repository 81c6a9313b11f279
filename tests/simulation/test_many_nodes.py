"""What a job of many nodes asks of its store, a node and a round or wish: as much among a thousand
as among ten.

A request is what a driver sends and waits for, or a watch that it opens. Renewals are not counted:
time alone says how many there are. Workers whose peer goes away do not fail here; where they do,
that is one report more a node.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Cause, Verdict
from tests.simulation.host import Host
from tests.simulation.world import World

NEW = {"TakeLease": 1, "Join": 1, "watch of log": 1, "watch of predecessor": 1}
BACK = {"Create": 1}
HEIR = {"Create": 1, "watch of predecessor": 1}
"""It is back, and the node before it was lost."""
ENDS = {"Create": 1, "Leave": 1}


class Job:
    """A job of ``nodes`` nodes; later one more comes, then one is lost, and in the end all succeed.

    ``costs`` are each member's requests for each of its rounds, by host, and after the last one.
    ``leader`` leads all of them.
    """

    def __init__(self, nodes: int) -> None:
        rules = ProtocolParameters(
            min_nodes=nodes, max_nodes=nodes + 1, last_call=5.0, lease_ttl=60.0
        )
        self.world = world = World(rules, random.Random(nodes), delay=0.005)
        world.work.duration, world.work.fragile = 100.0, 0.0
        self.costs: list[dict[Host, Counter[str]]] = []
        self._before: dict[Host, Counter[str]] = {}
        for _ in range(nodes):
            world.at(world.random(), self._arrive)
        for when, event in ((15.0, self._arrive), (30.0, self._lose), (45.0, lambda: None)):
            world.at(when, self._count_round)
            world.at(when, event)
        world.run()
        self._count([host for host in world.hosts if not host.dead])

    def _arrive(self) -> None:
        self.world.arrive(f"n{len(self.world.hosts)}", token="0")

    def _lose(self) -> None:
        self.world.hosts[len(self.world.hosts) // 2].crash(guarded=True)

    def _count_round(self) -> None:
        running = self.world.store.log().running
        assert running is not None
        members = [host for host in self.world.hosts if running.seat(host.node)]
        assert all(host.running == running.stage for host in members)
        (self.leader,) = [host for host in members if host.machine.state.leads]
        self._count(members)

    def _count(self, hosts: list[Host]) -> None:
        cost = {host: host.requests - self._before.get(host, Counter()) for host in hosts}
        self.costs.append(cost)
        self._before = {host: Counter(host.requests) for host in hosts}


@pytest.mark.parametrize("nodes", [10, 100, 1000])
def test_a_round_costs_a_node_four_requests_at_most_and_the_leader_eight(nodes: int) -> None:
    job = Job(nodes)
    verdicts = [verdict.cause for verdict, _ in job.world.properties.verdicts.values()]
    assert verdicts == [Cause.GROWN, Cause.LOST, Cause.SUCCEEDED]
    assert all(host.dead or isinstance(host.end, do.FinishedWell) for host in job.world.hosts)
    leaders = [cost.pop(job.leader).total() for cost in job.costs]
    assert leaders[:3] == [8, 6, 6]
    assert leaders[3] <= 4
    first, grown, shrunk, end = ([dict(cost) for cost in costs.values()] for costs in job.costs)
    assert first == [NEW] * (nodes - 1)
    assert grown == [BACK] * (nodes - 1) + [NEW]
    assert sorted(shrunk, key=len) == [BACK] * (nodes - 2) + [HEIR]
    assert all(cost.items() >= ENDS.items() for cost in end)
    # Who hears late of the end sees nodes leave before it, and watches another one, or leads.
    late = sum(sum(cost.values()) for cost in end) - (nodes - 1) * 2
    print(f"{nodes} nodes: {late} requests of those that hear late of the end")
    assert late < nodes / 2


@pytest.mark.parametrize("nodes", [10, 300])
def test_a_wish_costs_a_member_one_request_and_the_leader_four(nodes: int) -> None:
    rules = ProtocolParameters(min_nodes=nodes, max_nodes=nodes, lease_ttl=60.0)
    world = World(rules, random.Random(nodes), delay=0.005)
    world.work.duration, world.work.fragile = 4.0, 0.0
    world.steps.rng, world.steps.lockstep = random.Random(1), False
    for number in range(nodes):
        world.at(world.random(), partial(world.arrive, f"n{number}", token="0"))
    before: dict[Host, Counter[str]] = {}
    costs: dict[Host, Counter[str]] = {}

    def wish() -> None:
        before.update((host, Counter(host.requests)) for host in world.hosts)
        wisher.append(next(host for host in world.hosts if not host.machine.state.leads))
        wisher[0].wish(frozenset({WishKind.CHECKPOINT}))

    wisher: list[Host] = []
    world.at(2.0, wish)
    world.at(4.0, lambda: costs.update((one, one.requests - before[one]) for one in world.hosts))
    world.run()
    (decision,) = world.properties.gates.decisions.values()
    assert decision.step is not None
    leader = next(host for host in world.hosts if host.profile.name == decision.by[:-2])
    asked = {"Create": 2, "watch of answers": 1, "DeleteGates": 1}
    assert dict(costs.pop(leader)) == asked
    assert dict(costs.pop(wisher[0])) == {"Create": 2}
    assert [dict(cost) for cost in costs.values()] == [{"Create": 1}] * (nodes - 2)


@pytest.mark.parametrize("nodes", [10, 40])
def test_a_newcomer_for_whom_ranks_save_costs_a_member_one_request_more_and_the_leader_four(
    nodes: int,
) -> None:
    rules = ProtocolParameters(
        min_nodes=nodes,
        max_nodes=nodes + 1,
        lease_ttl=60.0,
        last_call=0.5,
        saves_before_growth=True,
    )
    world = World(rules, random.Random(nodes), delay=0.005)
    world.work.duration, world.work.fragile = 8.0, 0.0
    world.steps.rng = world.saves.rng = random.Random(1)
    world.steps.steady, world.saves.seconds = True, 0.1
    for number in range(nodes):
        world.at(world.random(), partial(world.arrive, f"n{number}", token="0"))
    before: dict[Host, Counter[str]] = {}
    costs: list[tuple[bool, Counter[str]]] = []

    def come() -> None:
        before.update((host, Counter(host.requests)) for host in world.hosts)
        world.arrive("new", token="0")

    def count(record: Verdict, host: Host) -> None:
        del record
        costs.extend((one is host, one.requests - cost) for one, cost in before.items())

    world.properties.growth.growing = count  # type: ignore[method-assign]  # when it is written
    world.at(4.0, come)
    world.run()
    asked = {"Create": 3, "watch of answers": 1, "DeleteGates": 1, "ReadReports": 1}
    assert [dict(cost) for leads, cost in costs if leads] == [asked]
    assert [dict(cost) for leads, cost in costs if not leads] == [{"Create": 1}] * (nodes - 1)
