"""The ledger in memory and those on real stores give equal answers to equal random programs."""

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
from tests.support.served_servers import ServedServer
from tests.support.stores import ETCD, SERVED, ZOOKEEPER
from tests.support.zookeeper_servers import ZooKeeperServer

_NODES = st.integers(0, 2)
_STEPS = st.one_of(
    st.tuples(st.just("join"), _NODES, st.sampled_from(["a", "b", "c"])),
    st.tuples(st.just("create"), _NODES, st.sampled_from(["x", "y", "xy"])),
    st.tuples(st.just("delete"), _NODES, st.sampled_from(["log/", "log/x", "members/", "log/z"])),
    st.tuples(st.just("end"), _NODES, st.just("")),
    st.tuples(st.just("read"), _NODES, st.sampled_from(["log/", "log/x", "members/", "members/a"])),
)


def _keys_and_values(records: Iterable[Record]) -> list[tuple[str, bytes]]:
    """Records without what differs between stores: revisions and the names of leases."""
    return [(record.key, record.value) for record in records]


class _Run:
    """The run of a program on one store with three nodes."""

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
                return _keys_and_values(joined.members.records)
            case "read":
                return list(node.read(what).items())
            case "end":
                node.ledger.end_lease(node.session.lease, deadline=soon())
                return None
            case _ if own is None:
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
                return type(outcome), _keys_and_values(records)
            case GuardGone():
                return GuardGone


def _run(world: World, program: list[tuple[str, int, str]]) -> list[object]:
    with world.open():
        run = _Run(world)
        watch = world.nodes[0].ledger.watch("log/", deadline=soon())
        results = [run.step(*step) for step in program]
        last: View = world.nodes[1].ledger.read("log/", deadline=soon())
        world.nodes[0].changes.wait_for(lambda: watch.view().records == last.records)
        return [*results, _keys_and_values(last.records)]


@pytest.mark.etcd
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(_STEPS, min_size=5, max_size=25))
def test_etcd_gives_the_same_answers_as_the_memory_ledger(
    shared_etcd: EtcdServer, program: list[tuple[str, int, str]]
) -> None:
    store = MemoryStore()
    memory = World(lambda namespace, on_change: MemoryLedger(store, on_change, namespace=namespace))
    expected, results = _run(memory, program), _run(ETCD.world(shared_etcd.endpoint), program)
    assert results == _with_allowed_errors(program, expected, results)


@pytest.mark.zookeeper
@settings(
    max_examples=10,  # each example starts four nodes with kazoo's threads
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(_STEPS, min_size=5, max_size=25))
def test_zookeeper_gives_the_same_answers_as_the_memory_ledger(
    shared_zookeeper: ZooKeeperServer, program: list[tuple[str, int, str]]
) -> None:
    store = MemoryStore()
    memory = World(lambda namespace, on_change: MemoryLedger(store, on_change, namespace=namespace))
    expected, results = (
        _run(memory, program),
        _run(ZOOKEEPER.world(shared_zookeeper.endpoint), program),
    )
    assert results == _with_allowed_errors(program, expected, results)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(_STEPS, min_size=5, max_size=25))
def test_a_served_ledger_gives_the_same_answers_as_the_memory_ledger(
    shared_served: ServedServer, program: list[tuple[str, int, str]]
) -> None:
    store = MemoryStore()
    memory = World(lambda namespace, on_change: MemoryLedger(store, on_change, namespace=namespace))
    assert _run(memory, program) == _run(SERVED.world(shared_served.endpoint), program)


def _with_allowed_errors(
    program: list[tuple[str, int, str]], expected: list[object], results: list[object]
) -> list[object]:
    """The expected answers. Where two answers are right, the one in ``results``.

    Two answers are right if a session is over and its step would do nothing for another reason,
    too. The memory ledger and ZooKeeper then say that the session is over; etcd looks at the
    records first.
    """
    over: set[int] = set()
    allowed = []
    for (act, index, _), one, other in zip(program, expected, results, strict=False):
        if act == "end":
            over.add(index)
        refused = all(answer in (SessionLost, LedgerConflict) for answer in (one, other))
        lost = index in over and SessionLost in (one, other)
        allowed.append(other if refused or lost else one)
    return [*allowed, *expected[len(allowed) :]]
