"""What happens to a store, done to real ones: killed, frozen, cut off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from llutil.ledgers import Created, LedgerClosed, LedgerUnavailable, SessionState
from tests.support.ledger_contract import DAY, Node, World, keys, soon, wait_until
from tests.support.ledger_traffic import Reader, Writer
from tests.support.proxy import Proxy, proxy
from tests.support.stores import ETCD, STORES, Server, Store

pytestmark = [pytest.mark.fault, pytest.mark.parametrize("store", STORES)]


@pytest.fixture
def own(store: Store, quiet: None) -> Iterator[Server]:
    """A server that a test may kill."""
    with store.start() as server:
        yield server


@pytest.fixture
def network(server: Server) -> Iterator[Proxy]:
    """A network before the shared server, which a test may harm."""
    with proxy(server.port) as one:
        yield one


@pytest.fixture
def far(store: Store, network: Proxy, world: World) -> Iterator[Node]:
    """A node of ``world`` that is behind that network."""
    with store.world(network.endpoint, namespace=world.namespace).open() as beyond:
        yield beyond.node()


def test_every_acknowledged_write_is_seen_in_order_although_the_store_is_killed_again_and_again(
    store: Store, own: Server
) -> None:
    with store.world(own.endpoint).open() as world:
        reader = Reader(world.node(), "log/")
        with Writer(world.node()) as writer:
            for _ in range(4 if store is ETCD else 2):  # a JVM takes longer to start
                time.sleep(0.3)
                own.kill()
                own.start()
            time.sleep(0.3)
        reader.check(writer.written())


def test_a_watch_that_is_cut_off_again_and_again_misses_nothing(
    network: Proxy, far: Node, world: World
) -> None:
    reader = Reader(far, "log/")
    with Writer(world.node()) as writer:
        for _ in range(5):
            network.cut()
            time.sleep(0.1)
            network.mend()
            time.sleep(0.2)
    reader.check(writer.written())


def test_a_watch_that_was_cut_off_reads_what_it_missed(
    network: Proxy, far: Node, world: World
) -> None:
    near = world.node()
    guard = near.join("a").record
    lease = near.session.grant_lease(DAY, deadline=soon())
    near.create(guard, lease, one=b"1", two=b"2")
    watch = far.ledger.watch("log/", deadline=soon())
    near.create(guard, lease, zero=b"0")
    far.changes.wait_for(lambda: keys(watch.view())[-1] == "log/zero")  # it is set, and has read
    near.session.delete("log/zero", guard=guard, deadline=soon())
    far.changes.wait_for(lambda: len(watch.view().records) == 2)
    network.cut()
    near.session.delete("log/one", guard=guard, deadline=soon())
    near.create(guard, lease, one=b"again", three=b"3")
    network.mend()
    far.changes.wait_for(lambda: keys(watch.view()) == ["log/two", "log/one", "log/three"])
    assert [record.value for record in watch.view().records] == [b"2", b"again", b"3"]


@pytest.mark.parametrize("act", ["open_session", "join", "create", "grant", "delete", "leave"])
def test_a_write_whose_answer_is_lost_is_read_back_and_not_repeated(
    network: Proxy, far: Node, world: World, act: str
) -> None:
    guard = far.join("a").record
    lease = far.session.grant_lease(DAY, deadline=soon())
    far.create(guard, lease, old=b"old")
    acts: dict[str, tuple[Callable[[], object], object]] = {
        "open_session": (
            lambda: far.ledger.open_session(10, deadline=soon()).state,
            SessionState.CONNECTED,
        ),
        "join": (lambda: far.join("b", b"second").record.key, "members/b"),
        "create": (lambda: far.create(guard, lease, new=b"new").__class__, Created),
        "grant": (lambda: bool(far.session.grant_lease(DAY, deadline=soon())), True),
        "delete": (lambda: far.session.delete("log/", guard=guard, deadline=soon()), True),
        "leave": (lambda: far.session.leave(guard, deadline=soon()), None),
    }
    do, wanted = acts[act]
    with ThreadPoolExecutor(1) as pool:
        network.lose_replies()
        future = pool.submit(do)
        assert network.lost.wait(5)
        network.mend()
        assert future.result(10) == wanted
    near = world.node()
    members = {} if act == "leave" else {"members/a": b"me"}
    members |= {"members/b": b"second"} if act == "join" else {}
    assert near.read("members/") == members
    log = {} if act == "delete" else {"log/old": b"old"}
    assert near.read("log/") == log | ({"log/new": b"new"} if act == "create" else {})


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
        lambda: node.session.release(deadline=soon(0.4)),
    ]
    with server.frozen(), ThreadPoolExecutor(len(calls)) as pool:
        began = time.monotonic()
        for future in [pool.submit(call) for call in calls]:
            with pytest.raises(LedgerUnavailable, match=r"frozen, cut off or overloaded|deadline"):
                future.result(5)
        assert time.monotonic() - began < 5


def test_a_session_is_suspended_by_its_own_clock_and_connected_when_the_store_is_back(
    store: Store, own: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with store.world(own.endpoint, ttl=2).open() as world:
        node = world.node()
        session = node.session
        node.join("a")
        own.kill()
        node.changes.wait_for(lambda: session.state is SessionState.SUSPENDED)
        assert 0 <= time.monotonic() - (session.renewed_at + session.ttl) < 2
        assert "is suspended: renew " in caplog.text
        assert "refused" in caplog.text
        own.start()
        node.changes.wait_for(lambda: session.state is SessionState.CONNECTED)
        # A store that was started again begins to count the time of its leases anew.
        assert node.read("members/") == {"members/a": b"me"}


def test_a_store_that_is_away_for_less_than_the_ttl_suspends_nobody(
    store: Store, own: Server
) -> None:
    told: list[SessionState] = []
    ledger = store.ledger(own.endpoint, told=lambda: told.append(session.state))
    # A JVM takes six seconds and more to start on a machine that does much else.
    session = ledger.open_session(6 if store is ETCD else 20, deadline=soon())
    try:
        own.kill()
        time.sleep(0.5)
        own.start()
        renewed = session.renewed_at
        wait_until(lambda: session.renewed_at > renewed, 30)
        assert session.state is SessionState.CONNECTED
        assert told == []
    finally:
        ledger.close()


def test_after_a_long_freeze_the_session_is_what_the_store_says(store: Store, own: Server) -> None:
    with store.world(own.endpoint, ttl=1).open() as world:
        node = world.node()
        session = node.session
        node.join("a")
        with own.frozen():
            node.changes.wait_for(lambda: session.state is SessionState.SUSPENDED)
            time.sleep(0.5)
        node.changes.wait_for(lambda: session.state is not SessionState.SUSPENDED)
        there = bool(node.read("members/"))
        assert there == (session.state is SessionState.CONNECTED)


def test_a_session_that_the_store_let_expire_is_lost(
    store: Store, network: Proxy, world: World
) -> None:
    with store.world(network.endpoint, namespace=world.namespace, ttl=1).open() as beyond:
        far, near = beyond.node(), world.node()
        far.join("a")
        watch = near.ledger.watch("members/", deadline=soon())
        network.cut()
        near.changes.wait_for(lambda: not watch.view().records)
        assert far.session.state is SessionState.SUSPENDED
        network.mend()
        far.changes.wait_for(lambda: far.session.state is SessionState.LOST)


def test_closing_does_not_wait_for_a_store_that_is_away(store: Store, server: Server) -> None:
    with store.world(server.endpoint).open() as world, ThreadPoolExecutor(1) as pool:
        node = world.node()
        node.join("a")
        node.ledger.watch("members/", deadline=soon())
        with server.frozen():
            call = pool.submit(node.ledger.read, "log/", deadline=soon(30))
            time.sleep(0.2)
            began = time.monotonic()
            node.ledger.close()
            assert time.monotonic() - began < 5
            with pytest.raises(LedgerClosed):
                call.result(5)


def test_a_store_that_was_never_there_is_named_with_the_reason(store: Store) -> None:
    with proxy(1) as network, store.world(network.endpoint).open() as world:
        network.cut()
        told = rf"127\.0\.0\.1:{network.port}: "
        with pytest.raises(LedgerUnavailable, match=told):
            world.node().ledger.open_session(10, deadline=soon(0.5))
        with pytest.raises(LedgerUnavailable, match=told):
            world.node().ledger.read("log/", deadline=soon(0.5))
