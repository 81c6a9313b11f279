"""Real stores are killed, frozen and cut off, and the ledgers go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import pytest

from llutil.ledgers import (
    Created,
    LedgerClosed,
    LedgerUnavailable,
    SessionState,
    session_keeper,
)
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.etcd.messages import lease_name
from llutil.ledgers.renewed_session import RenewedSession
from llutil.ledgers.session_keeper import Renewal
from tests.integration.ledgers.conftest import joined, wait_for_reason
from tests.support.etcd_servers import EtcdServer
from tests.support.ledger_contract import DAY, Node, World, keys, renew_often, soon, wait_until
from tests.support.ledger_traffic import Reader, Writer
from tests.support.proxy import Proxy, proxy
from tests.support.stores import DURABLE_STORES, ETCD, STORES, Server, Store
from tests.support.zookeeper_servers import ZooKeeperServer, client

pytestmark = pytest.mark.fault
_ON_STORES = pytest.mark.parametrize("store", STORES)
# What is written has to outlive the server, which a served ledger does not promise.
_ON_DURABLE_STORES = pytest.mark.parametrize("store", DURABLE_STORES)


@pytest.fixture
def own_server(store: Store, quiet: None) -> Iterator[Server]:
    """A server of this test only, which it may kill."""
    with store.start() as server:
        yield server


@pytest.fixture
def network(server: Server) -> Iterator[Proxy]:
    """A proxy in front of the shared server, which the test may cut."""
    with proxy(server.port) as one:
        yield one


@pytest.fixture
def far_node(store: Store, network: Proxy, world: World) -> Iterator[Node]:
    """A node of ``world`` behind that proxy."""
    with store.world(network.endpoint, namespace=world.namespace).open() as beyond:
        yield beyond.node()


@_ON_DURABLE_STORES
def test_every_acknowledged_write_is_seen_in_order_although_the_store_is_restarted_repeatedly(
    store: Store, own_server: Server
) -> None:
    with store.world(own_server.endpoint).open() as world:
        reader = Reader(world.node(), "log/")
        with Writer(world.node()) as writer:
            for _ in range(4 if store is ETCD else 2):  # a JVM takes longer to start
                time.sleep(0.3)
                if isinstance(own_server, EtcdServer):
                    # A single etcd before 3.5.5 may lose what it acknowledged if it is killed
                    # (etcd-io/etcd#14370); the Python package has 3.5.1.
                    own_server.end()
                else:
                    own_server.kill()
                own_server.start()
            time.sleep(0.3)
        reader.check(writer.written())


@_ON_STORES
def test_a_watch_that_is_cut_off_repeatedly_misses_nothing(
    network: Proxy, far_node: Node, world: World
) -> None:
    reader = Reader(far_node, "log/")
    with Writer(world.node()) as writer:
        for _ in range(5):
            network.cut()
            time.sleep(0.1)
            network.mend()
            time.sleep(0.2)
    reader.check(writer.written())


@_ON_STORES
def test_a_watch_that_was_cut_off_reads_what_it_missed(
    network: Proxy, far_node: Node, world: World
) -> None:
    near = world.node()
    guard = near.join("a").record
    lease = near.session.grant_lease(DAY, deadline=soon())
    near.create(guard, lease, one=b"1", two=b"2")
    watch = far_node.ledger.watch("log/", deadline=soon())
    near.create(guard, lease, zero=b"0")
    # From here on the watch is set and has read the folder.
    far_node.changes.wait_for(lambda: keys(watch.view())[-1] == "log/zero")
    near.session.delete("log/zero", guard=guard, deadline=soon())
    far_node.changes.wait_for(lambda: len(watch.view().records) == 2)
    network.cut()
    near.session.delete("log/one", guard=guard, deadline=soon())
    near.create(guard, lease, one=b"again", three=b"3")
    network.mend()
    far_node.changes.wait_for(lambda: keys(watch.view()) == ["log/two", "log/one", "log/three"])
    assert [record.value for record in watch.view().records] == [b"2", b"again", b"3"]


@_ON_STORES
@pytest.mark.parametrize("call", ["open_session", "join", "create", "grant", "delete"])
def test_a_write_whose_answer_is_lost_is_read_back_and_not_repeated(
    network: Proxy, far_node: Node, world: World, call: str
) -> None:
    guard = far_node.join("a").record
    lease = far_node.session.grant_lease(DAY, deadline=soon())
    far_node.create(guard, lease, old=b"old")
    calls: dict[str, tuple[Callable[[], object], object]] = {
        "open_session": (
            lambda: far_node.ledger.open_session(10, deadline=soon()).state,
            SessionState.CONNECTED,
        ),
        "join": (lambda: far_node.join("b", b"second").record.key, "members/b"),
        "create": (lambda: far_node.create(guard, lease, new=b"new").__class__, Created),
        "grant": (lambda: bool(far_node.session.grant_lease(DAY, deadline=soon())), True),
        "delete": (lambda: far_node.session.delete("log/", guard=guard, deadline=soon()), True),
    }
    action, expected = calls[call]
    with ThreadPoolExecutor(1) as pool:
        network.lose_replies()
        future = pool.submit(action)
        assert network.lost.wait(30)
        network.mend()
        assert future.result(30) == expected
    near = world.node()
    joined = {"members/b": b"second"} if call == "join" else {}
    assert near.read("members/") == {"members/a": b"me"} | joined
    log = {} if call == "delete" else {"log/old": b"old"}
    assert near.read("log/") == log | ({"log/new": b"new"} if call == "create" else {})


@_ON_DURABLE_STORES
def test_a_lease_that_was_granted_after_the_calls_deadline_is_the_one_of_the_next_call(
    server: Server, network: Proxy, far_node: Node, world: World
) -> None:
    far_node.join("a")
    world.node().session.grant_lease(DAY, deadline=soon())  # the first lease's folder is there
    before = _leases(server, world)
    network.lose_replies()

    def is_granted_unheard() -> bool:
        with pytest.raises(LedgerUnavailable):
            far_node.session.grant_lease(DAY, deadline=soon(1))
        return bool(_leases(server, world) - before)

    wait_until(is_granted_unheard)
    network.mend()
    lease = far_node.session.grant_lease(DAY, deadline=soon())
    assert {lease} == _leases(server, world) - before
    second = far_node.session.grant_lease(DAY, deadline=soon())
    assert {lease, second} == _leases(server, world) - before


def _leases(server: Server, world: World) -> set[str]:
    """The names of the leases that the server has granted, in that world if it is a ZooKeeper."""
    if isinstance(server, EtcdServer):
        with server.channel() as channel:
            stub = etcdrpc.LeaseStub(channel)
            answer = stub.LeaseLeases(etcdrpc.LeaseLeasesRequest(), timeout=10)
        return {lease_name(one.ID) for one in answer.leases}
    assert isinstance(server, ZooKeeperServer)
    with client(server) as zookeeper:
        return set(zookeeper.get_children(f"/{world.namespace}/-/-"))


@_ON_STORES
def test_calls_to_a_frozen_store_end_by_their_deadline_and_say_so(
    server: Server, world: World
) -> None:
    node = world.node()
    guard = node.join("a").record
    node.read("log/")
    lease = node.session.grant_lease(DAY, deadline=soon())
    calls: list[Callable[[], object]] = [
        lambda: node.ledger.read("log/", deadline=soon(0.4)),
        lambda: node.ledger.watch("log/", deadline=soon(0.4)),
        lambda: node.ledger.open_session(10, deadline=soon(0.4)),
        lambda: node.session.join("members/", "b", b"", deadline=soon(0.4)),
        lambda: node.session.create({"x": b""}, guard=guard, lease=lease, deadline=soon(0.4)),
    ]
    with server.frozen(), ThreadPoolExecutor(len(calls)) as pool:
        began = time.monotonic()
        for future in [pool.submit(call) for call in calls]:
            with pytest.raises(LedgerUnavailable, match=r"frozen, cut off or overloaded|deadline"):
                future.result(20)
        # Last: it ends the session, and what still waits in it.
        with pytest.raises(LedgerUnavailable, match=r"frozen, cut off or overloaded|deadline"):
            node.session.release(deadline=soon(0.4))
        assert time.monotonic() - began < 20


@_ON_DURABLE_STORES
def test_a_session_is_suspended_by_its_own_clock_and_connected_when_the_store_is_back(
    store: Store,
    own_server: Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renew_often(monkeypatch)
    monkeypatch.setattr(session_keeper, "RENEWAL_TIMEOUT", 0.5)
    over = 0.0  # renewals from before that moment are not valid any more
    until = property(lambda renewal: math.inf if renewal.sent > over else over)
    monkeypatch.setattr(Renewal, "valid_until", until)
    with store.world(own_server.endpoint).open() as world:
        node = world.node()
        session = node.session
        assert isinstance(session, RenewedSession)
        node.join("a")
        # etcd up to 3.5.2 may lose what it has written in the last 0.1 s when it is killed
        # (etcd-io/etcd#13766).
        time.sleep(0.5)
        own_server.kill()
        wait_until(lambda: "refused" in session._renewals._failure_text)
        assert session.state is SessionState.CONNECTED
        over = time.monotonic()
        node.changes.wait_for(lambda: "is suspended: renew " in caplog.text)
        assert session.state is SessionState.SUSPENDED
        assert "refused" in caplog.text
        own_server.start()
        node.changes.wait_for(lambda: session.state is SessionState.CONNECTED)
        # A store that was restarted counts the ttl of its leases from the restart on.
        assert node.read("members/") == {"members/a": b"me"}


@_ON_DURABLE_STORES
def test_a_store_that_is_away_for_less_than_the_ttl_suspends_no_session(
    store: Store, own_server: Server
) -> None:
    # kazoo waits for two thirds of it for a server that accepts connections and does not serve yet.
    ttl = 8.0 if store is ETCD else 40.0

    def restart() -> bool:
        states: list[SessionState] = []
        ledger = store.ledger(own_server.endpoint, on_change=lambda: states.append(session.state))
        session = ledger.open_session(ttl, deadline=soon())
        with closing(ledger):
            stopped = time.monotonic()
            own_server.kill()
            own_server.start()
            renewed = session.renewed_at
            if time.monotonic() - stopped > ttl / 4:
                return False
            wait_until(lambda: session.renewed_at > renewed)
            assert session.state is SessionState.CONNECTED
            assert states == []
        return True

    # A JVM may take longer than the ttl to start on a machine that does much else: then again.
    assert any(restart() for _ in range(5))


@_ON_STORES
def test_after_a_long_freeze_the_session_is_what_the_store_says(
    store: Store, own_server: Server
) -> None:
    with store.world(own_server.endpoint).open() as world:
        node = world.node()
        session = joined(node.ledger, 1)
        with own_server.frozen():
            node.changes.wait_for(lambda: session.state is not SessionState.CONNECTED)
            time.sleep(0.5)
        before, after = SessionState.SUSPENDED, session.state
        while after is SessionState.SUSPENDED or before is not after:
            node.changes.wait_for(lambda: session.state is not SessionState.SUSPENDED)
            before, there, after = session.state, bool(node.read("members/")), session.state
        assert there == (after is SessionState.CONNECTED)


@_ON_STORES
def test_a_session_that_the_store_let_expire_is_lost(
    store: Store, network: Proxy, world: World
) -> None:
    with store.world(network.endpoint, namespace=world.namespace).open() as beyond:
        far_node, near = beyond.node(), world.node()
        session = joined(far_node.ledger, 1)
        watch = near.ledger.watch("members/", deadline=soon())
        network.cut()
        near.changes.wait_for(lambda: not watch.view().records)
        assert session.state is not SessionState.CONNECTED
        network.mend()
        far_node.changes.wait_for(lambda: session.state is SessionState.LOST)


@_ON_STORES
def test_close_does_not_wait_for_a_store_that_is_away(store: Store, server: Server) -> None:
    with store.world(server.endpoint).open() as world, ThreadPoolExecutor(1) as pool:
        node = world.node()
        node.join("a")
        node.ledger.watch("members/", deadline=soon())
        with server.frozen():
            call = pool.submit(node.ledger.read, "log/", deadline=soon(30))
            time.sleep(0.2)
            began = time.monotonic()
            node.ledger.close()
            assert time.monotonic() - began < 15
            with pytest.raises(LedgerClosed):
                call.result(15)


@_ON_STORES
def test_a_store_that_never_answered_is_named_with_the_reason(store: Store) -> None:
    with proxy(1) as network, store.world(network.endpoint).open() as world:
        network.cut()
        message = rf"127\.0\.0\.1:{network.port}\b.*(refused|reset|closed|connect)"
        wait_for_reason(partial(world.node().ledger.open_session, 10), message, 0.5)
        wait_for_reason(partial(world.node().ledger.read, "log/"), message, 0.5)
