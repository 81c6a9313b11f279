"""The ledgers in memory, on etcd and on ZooKeeper give the same answers to the same random
programs.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llutil.ledgers import (
    Created,
    Exists,
    GuardGone,
    LedgerConflict,
    LedgerError,
    Record,
    SessionLost,
    View,
)
from llutil.ledgers.memory import MemoryLedger
from llutil.ledgers.memory_store import MemoryStore
from tests.support.etcd_servers import EtcdServer
from tests.support.ledger_contract import DAY, World, soon
from tests.support.stores import ETCD, ZOOKEEPER
from tests.support.zookeeper_servers import ZooKeeperServer

_NODES = st.integers(0, 2)
_STEPS = st.one_of(
    st.tuples(st.just("join"), _NODES, st.sampled_from(["a", "b", "c"])),
    st.tuples(st.just("create"), _NODES, st.sampled_from(["x", "y", "xy"])),
    st.tuples(st.just("delete"), _NODES, st.sampled_from(["log/", "log/x", "members/", "log/z"])),
    st.tuples(st.just("leave"), _NODES, st.just("")),
    st.tuples(st.just("end"), _NODES, st.just("")),
    st.tuples(st.just("read"), _NODES, st.sampled_from(["log/", "log/x", "members/", "members/a"])),
)


def _plain(records: Iterable[Record]) -> list[tuple[str, bytes]]:
    """Records without what differs between stores: revisions and the names of leases."""
    return [(record.key, record.value) for record in records]


class _Run:
    """A program's run on one store: three nodes, and what each step gave."""

    def __init__(self, world: World) -> None:
        self._nodes = [world.node() for _ in range(3)]
        self._own: dict[int, Record] = {}
        self._lease = world.node().session.grant_lease(DAY, deadline=soon())

    def step(self, act: str, index: int, what: str) -> object:
        try:
            return self._step(act, index, what)
        except LedgerError as error:
            return type(error)

    def _step(self, act: str, index: int, what: str) -> object:
        node, own = self._nodes[index], self._own.get(index)
        match act:
            case "join":
                joined = node.join(what, f"node {index}".encode())
                self._own[index] = joined.record
                before = joined.predecessor
                return _plain(joined.members.records), before and before.key
            case "read":
                return list(node.read(what).items())
            case "end":
                node.ledger.end_lease(node.session.lease, deadline=soon())
                return None
            case _ if own is None:
                return None
            case "leave":
                node.session.leave(own, deadline=soon())
                return None
            case "delete":
                return what == "members/" or node.session.delete(what, guard=own, deadline=soon())
            case _:
                return self._create(index, own, what)

    def _create(self, index: int, own: Record, what: str) -> object:
        outcome = self._nodes[index].create(
            own, self._lease, **{key: f"{index}".encode() for key in what}
        )
        match outcome:
            case Created(records) | Exists(records):
                return type(outcome), _plain(records)
            case GuardGone():
                return GuardGone


def _run(world: World, program: list[tuple[str, int, str]]) -> list[object]:
    with world.open():
        run = _Run(world)
        watch = world.nodes[0].ledger.watch("log/", deadline=soon())
        given = [run.step(*step) for step in program]
        last: View = world.nodes[1].ledger.read("log/", deadline=soon())
        world.nodes[0].changes.wait_for(lambda: watch.view().records == last.records)
        return [*given, _plain(last.records)]


@pytest.mark.etcd
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(_STEPS, min_size=5, max_size=25))
def test_both_give_the_same_answers(
    shared_etcd: EtcdServer, program: list[tuple[str, int, str]]
) -> None:
    store = MemoryStore()
    memory = World(lambda namespace, told: MemoryLedger(store, told, namespace=namespace))
    assert _run(memory, program) == _run(ETCD.world(shared_etcd.endpoint), program)


@pytest.mark.zookeeper
@settings(
    max_examples=10,  # each starts four nodes, with kazoo's threads
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(_STEPS, min_size=5, max_size=25))
def test_zookeeper_gives_the_same_answers_too(
    shared_zookeeper: ZooKeeperServer, program: list[tuple[str, int, str]]
) -> None:
    store = MemoryStore()
    memory = World(lambda namespace, told: MemoryLedger(store, told, namespace=namespace))
    wanted, given = _run(memory, program), _run(ZOOKEEPER.world(shared_zookeeper.endpoint), program)
    assert given == _either(program, wanted, given)


def _either(
    program: list[tuple[str, int, str]], wanted: list[object], given: list[object]
) -> list[object]:
    """What is wanted; but who may be refused for two reasons, of which one is that his session is
    over, is told any.

    ZooKeeper says nothing but that to a session that is over; the others may look whether its
    record is there.
    """
    over: set[int] = set()
    told = []
    for (act, index, _), one, other in zip(program, wanted, given, strict=False):
        if act == "end":
            over.add(index)
        refused = all(answer in (SessionLost, LedgerConflict) for answer in (one, other))
        told.append(other if refused or (index in over and other is SessionLost) else one)
    return [*told, *wanted[len(told) :]]
