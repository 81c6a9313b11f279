"""What a round costs a store, counted by the store itself: requests, and writes to its log.

On etcd a node makes five requests: for a lease, to join, for the record of the node before it, for
one stream with all its watches, to report. The leader has no node before it, and makes four more
for them all: for the generation's lease, for what was reported before it led, for the assignment,
and for the verdict. Cleaning up is one request more, and leaving
one for each node.

On a served ledger a node makes four requests to come into a round: for a session, to join, to watch
the log, and for the record of the node before it, with the watch. To report is one more.

On ZooKeeper a node writes five times: it opens a session to live by and one to watch by, joins,
reports, and leaves by ending both. Nobody has transactions that read there, so the rest are reads,
which one server answers by itself; their number is constant a node too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from llutil.ledgers import Ledger
from llutil.ledgers.etcd import connection
from llutil.ledgers.zookeeper import kazoo_session, session_handshake
from llutil.rendezvous.driver.driver import AgentInstruction, Driver
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Member
from tests.support.etcd_servers import EtcdServer
from tests.support.memory_rendezvous import Port
from tests.support.served_servers import ServedServer
from tests.support.stores import ETCD, SERVED, ZOOKEEPER, Server, Store
from tests.support.zookeeper_servers import ZooKeeperServer
from tests.support.zookeeper_transactions import Transaction, transactions

_SOON = 30.0  # seconds
_FREE = {"LeaseKeepAlive", "Authenticate", "Renew", "KeepAlive"}
"""Not counted: time alone says how many there are."""
_BEGUN, _ENDED, _FAILED, _SEVERAL = -10, -11, -1, 14  # ZooKeeper's kinds of transactions


@pytest.fixture
def server(own_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose requests are this test's. None is sent twice because a machine is slow."""
    monkeypatch.setattr(connection, "_ATTEMPT_TIMEOUT", (_SOON, _SOON))
    monkeypatch.setattr(session_handshake, "_ENDPOINT_TIMEOUT", _SOON)
    monkeypatch.setattr(kazoo_session, "_CLOSE_GRACE", _SOON)
    return own_server


def _count(server: Server) -> Counter[str]:
    """Requests by kind, and ``writes``, since the server started."""
    if isinstance(server, EtcdServer):
        kinds = {kind: n for kind, n in server.requests().items() if kind not in _FREE}
        writes = sum(server.metrics("etcd_server_proposals_applied_total").values())
        return Counter({**kinds, "writes": writes})
    if isinstance(server, ServedServer):
        asked = server.ask("requests")
        return Counter({kind: n for kind, n in asked.items() if kind not in _FREE})
    reads = int(server.metrics().get("zk_cnt_readlatency", 0))
    return Counter(map(_kind, transactions(server))) + Counter(reads=reads)


def _kind(one: Transaction) -> str:
    """What a write of ours on ZooKeeper is for."""
    if one.kind in {_BEGUN, _ENDED, _FAILED}:
        return {_BEGUN: "sessions begun", _ENDED: "sessions ended", _FAILED: "in vain"}[one.kind]
    if not one.made and not one.gone and one.kind == _SEVERAL:
        return "in vain"
    words = [word for path in one.made for word in path.split("/")]
    for word in ("members", "reports", "log"):
        if word in words and any("/=" in path or "/@" in path for path in one.made):
            return word
    return "others"


class _Count:
    """What was counted since it was last asked."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = _count(server)

    def since(self, ended: int = 0) -> dict[str, int]:
        """The count, once so many of ZooKeeper's sessions have ended: that is not waited for by
        whoever leaves.
        """
        deadline = time.monotonic() + _SOON
        now = _count(self._server)
        while (now - self._before)["sessions ended"] < ended and time.monotonic() < deadline:
            time.sleep(0.05)
            now = _count(self._server)
        before, self._before = self._before, now
        return dict(now - before)


@contextmanager
def _started(store: Store, server: Server, count: int) -> Iterator[list[Driver]]:
    """Nodes that all have to be there. Their leases are long, so that none is renewed meanwhile."""
    rules = ProtocolParameters(min_nodes=count, max_nodes=count, lease_ttl=60.0)

    def open_ledger(told: Callable[[], None]) -> Ledger:
        return store.ledger(server.endpoint, on_change=told)

    drivers = []
    with ExitStack() as stack:
        for number in range(count):
            member = Member(
                node="", name=f"n{number}", host="here", address="10.0.0.1", role="worker", nproc=1
            )
            drivers.append(Driver(rules, member, RecordKeys("run"), open_ledger, Port))
            stack.callback(drivers[-1].close, time.monotonic() + _SOON)
            drivers[-1].start()
        yield drivers


def _next_instructions(drivers: list[Driver]) -> list[AgentInstruction]:
    """One instruction of each."""
    found: list[AgentInstruction] = []
    deadline = time.monotonic() + _SOON
    for driver in drivers:
        instructions: tuple[AgentInstruction, ...] = ()
        while not instructions and time.monotonic() < deadline:
            driver.wait(deadline)
            instructions = driver.take_instructions()
        found += instructions
    assert len(found) == len(drivers)
    return found


def _cost(
    store: Store, server: Server, count: int, ended: int = 0
) -> tuple[dict[str, int], dict[str, int]]:
    """What it took until a round was sealed, and from then on until all had left."""
    counted = _Count(server)
    with _started(store, server, count) as drivers:
        for instruction in _next_instructions(drivers):
            assert isinstance(instruction, do.StartWorkers)
            stage = instruction.assignment.stage
        sealing = counted.since()
        for driver in drivers:
            driver.tell(see.WorkersEnded(stage, None))
        assert all(
            isinstance(instruction, do.Finish) for instruction in _next_instructions(drivers)
        )
        return sealing, counted.since(ended)


@pytest.mark.etcd
@pytest.mark.parametrize("store", [ETCD], ids=str)
@pytest.mark.parametrize("count", [2, 8, 16])
def test_what_a_round_costs_etcd(store: Store, server: EtcdServer, count: int) -> None:
    sealing, ending = _cost(store, server, count)
    assert sealing == {
        "LeaseGrant": count + 1,
        "Txn": count + 1,
        "Watch": count,
        "Range": count,
        "writes": 2 * count + 2,
    }
    reports, verdict, sweep, leaving = count, 1, 1, count
    assert ending == {
        "Txn": reports + verdict + sweep,
        "LeaseRevoke": leaving,
        "writes": reports + verdict + sweep + leaving,
    }


@pytest.mark.etcd
@pytest.mark.parametrize("store", [ETCD], ids=str)
@pytest.mark.parametrize("count", [2, 8])
def test_what_a_wish_costs_etcd(store: Store, server: EtcdServer, count: int) -> None:
    with _started(store, server, count) as drivers:
        (start, *_) = _next_instructions(drivers)
        assert isinstance(start, do.StartWorkers)
        leader = int(start.assignment.by.removeprefix("n").partition(".")[0])
        before = _count(server)
        wish = see.WishMade(frozenset({WishKind.CHECKPOINT}), "somebody asked")
        drivers[leader - 1].tell(wish)
        for driver, instruction in zip(drivers, _next_instructions(drivers), strict=True):
            assert isinstance(instruction, do.RaiseGate)
            gate = instruction.gate
            driver.tell(see.GateRaised(gate.stage, gate.number, 7))
        for instruction in _next_instructions(drivers):
            assert isinstance(instruction, do.OpenGate)
            assert instruction.step == 7
        wishes, answers, of_leader = 1, count - 1, 3  # gate, decision, deletion
        writes = wishes + answers + of_leader
        # The leader's watch of the answers is no request: all of a node's watches are one stream.
        wanted = {"Txn": writes, "writes": writes}
        deadline = time.monotonic() + _SOON
        while (found := dict(_count(server) - before)) != wanted:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)


@pytest.mark.zookeeper
@pytest.mark.parametrize("store", [ZOOKEEPER], ids=str)
@pytest.mark.parametrize("count", [2, 16])
def test_what_a_round_costs_zookeeper(store: Store, server: ZooKeeperServer, count: int) -> None:
    sealing, ending = _cost(store, server, count, ended=2 * count)
    print(count, sealing, ending)
    assert sealing["sessions begun"] == 2 * count
    assert sealing["members"] == count
    assert sealing["log"] == 1
    assert ending["sessions ended"] == 2 * count
    assert ending["reports"] == count
    assert ending["log"] == 1
    for counted in (sealing, ending):
        assert counted["others"] <= 9  # folders, and the generation's lease
        assert (
            counted["in vain"] <= 5 * count + 8
        )  # of nodes that come at once, and all find no folder
        assert counted["reads"] <= 25 * count + 30  # some of which time alone causes


@pytest.mark.parametrize("store", [SERVED], ids=str)
@pytest.mark.parametrize("count", [2, 16])
def test_what_a_round_costs_a_served_ledger(store: Store, server: ServedServer, count: int) -> None:
    sealing, ending = _cost(store, server, count)
    # Nobody waits for the answer to a watch, so that some may come after the seal.
    assert sealing["OpenSession"] + sealing["Join"] + sealing["Create"] == 2 * count + 1
    reports, verdict, assignment = count, 1, 1
    assert Counter(sealing) + Counter(ending) == {
        "OpenSession": count,
        "Join": count,
        "Watch": 2 * count + 2,  # of the log and the predecessor; the leader's of the other two
        "Unwatch": 1,
        "GrantLease": 1,
        "Create": assignment + reports + verdict,
        "Delete": 1,
        "EndLease": count,
    }
