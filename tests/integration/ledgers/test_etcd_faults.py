"""What happens to an etcd, done to real ones: killed, frozen, cut off, compacted, wiped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from llutil.ledgers import Created, LedgerClosed, LedgerUnavailable, SessionState
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.ledger import EtcdLedger
from tests.integration.ledgers.conftest import world_on
from tests.ledger_contract import DAY, Node, World, keys, soon, wait_until
from tests.ledger_traffic import Reader, Writer
from tests.proxy import Proxy, proxy
from tests.servers import EtcdServer, etcd

pytestmark = [pytest.mark.etcd, pytest.mark.fault]


@pytest.fixture
def own() -> Iterator[EtcdServer]:
    """An etcd that a test may harm."""
    with etcd() as server:
        yield server


@pytest.fixture
def network(server: EtcdServer) -> Iterator[Proxy]:
    """A network before the shared etcd, which a test may harm."""
    with proxy(server.port) as one:
        yield one


@pytest.fixture
def far(network: Proxy, world: World) -> Iterator[Node]:
    """A node of ``world`` that is behind that network."""
    with world_on(network.endpoint, namespace=world.namespace).open() as beyond:
        yield beyond.node()


def test_every_acknowledged_write_is_seen_in_order_although_etcd_is_killed_again_and_again(
    own: EtcdServer,
) -> None:
    with world_on(own.endpoint).open() as world:
        reader = Reader(world.node(), "log/")
        with Writer(world.node()) as writer:
            for _ in range(4):
                time.sleep(0.2)
                own.kill()
                own.start()
            time.sleep(0.2)
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


@pytest.mark.parametrize("act", ["open_session", "join", "create", "grant", "delete", "leave"])
def test_a_write_whose_answer_is_lost_is_read_back_and_not_repeated(
    network: Proxy, far: Node, world: World, act: str
) -> None:
    guard = far.join("a").record
    lease = far.session.grant(DAY, deadline=soon())
    far.create(guard, lease, old=b"old")
    acts: dict[str, Callable[[], object]] = {
        "open_session": lambda: far.ledger.open_session(10, deadline=soon()).state,
        "join": lambda: far.join("b", b"second").record.key,
        "create": lambda: far.create(guard, lease, new=b"new").__class__,
        "grant": lambda: bool(far.session.grant(DAY, deadline=soon())),
        "delete": lambda: far.session.delete("log/", guard=guard, deadline=soon()),
        "leave": lambda: far.session.leave(guard, deadline=soon()),
    }
    wanted: dict[str, object] = {
        "open_session": SessionState.CONNECTED,
        "join": "members/b",
        "create": Created,
        "grant": True,
        "delete": True,
        "leave": None,
    }
    with ThreadPoolExecutor(1) as pool:
        network.lose_replies()
        future = pool.submit(acts[act])
        assert network.lost.wait(5)
        network.mend()
        assert future.result(10) == wanted[act]
    near = world.node()
    members, log = near.read("members/"), near.read("log/")
    assert members == {
        "members/a": b"me",
        **({"members/b": b"second"} if act == "join" else {}),
    } or (act == "leave" and not members)
    assert log == {
        **({"log/old": b"old"} if act != "delete" else {}),
        **({"log/new": b"new"} if act == "create" else {}),
    }


def test_calls_to_a_frozen_etcd_end_by_their_deadline_and_say_so(own: EtcdServer) -> None:
    with world_on(own.endpoint).open() as world:
        node = world.node()
        guard = node.join("a").record
        lease = node.session.grant(DAY, deadline=soon())
        calls: list[Callable[[], object]] = [
            lambda: node.ledger.read("log/", deadline=soon(0.4)),
            lambda: node.ledger.watch("log/", deadline=soon(0.4)),
            lambda: node.ledger.open_session(10, deadline=soon(0.4)),
            lambda: node.session.join("members/", "b", b"", deadline=soon(0.4)),
            lambda: node.session.create({"x": b""}, guard=guard, lease=lease, deadline=soon(0.4)),
            lambda: node.session.release(deadline=soon(0.4)),
        ]
        with own.frozen(), ThreadPoolExecutor(len(calls)) as pool:
            began = time.monotonic()
            for future in [pool.submit(call) for call in calls]:
                with pytest.raises(LedgerUnavailable, match="frozen, cut off or overloaded"):
                    future.result(5)
            assert time.monotonic() - began < 5


def test_a_session_is_suspended_by_its_own_clock_and_connected_when_etcd_is_back(
    own: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    with world_on(own.endpoint, ttl=3).open() as world:
        node = world.node()
        session = node.session
        node.join("a")
        own.kill()
        node.changes.wait_for(lambda: session.state is SessionState.SUSPENDED)
        late = time.monotonic() - (session.renewed + session.ttl)
        assert 0 <= late < 2
        assert "is suspended: renew lease" in caplog.text
        assert "Connection refused" in caplog.text
        own.start()
        node.changes.wait_for(lambda: session.state is SessionState.CONNECTED)
        assert node.read("members/") == {"members/a": b"me"}  # etcd restarts its leases' time too


def test_an_etcd_that_is_away_for_less_than_the_ttl_suspends_nobody(own: EtcdServer) -> None:
    told: list[SessionState] = []
    ledger = EtcdLedger(EtcdConfig(endpoints=(own.endpoint,)), lambda: told.append(session.state))
    session = ledger.open_session(2, deadline=soon())
    try:
        own.kill()
        time.sleep(0.5)
        own.start()
        renewed = session.renewed
        wait_until(lambda: session.renewed > renewed)
        assert session.state is SessionState.CONNECTED
        assert told == []
    finally:
        ledger.close()


def test_after_a_long_freeze_the_session_is_what_etcd_says(own: EtcdServer) -> None:
    with world_on(own.endpoint, ttl=1).open() as world:
        node = world.node()
        session = node.session
        node.join("a")
        with own.frozen():
            node.changes.wait_for(lambda: session.state is SessionState.SUSPENDED)
            time.sleep(0.5)
        node.changes.wait_for(lambda: session.state is not SessionState.SUSPENDED)
        there = bool(node.read("members/"))
        assert there == (session.state is SessionState.CONNECTED)


def test_a_session_that_etcd_let_expire_is_lost(network: Proxy, world: World) -> None:
    with world_on(network.endpoint, namespace=world.namespace, ttl=1).open() as beyond:
        far, near = beyond.node(), world.node()
        far.join("a")
        watch = near.ledger.watch("members/", deadline=soon())
        network.cut()
        near.changes.wait_for(lambda: not watch.view().records)
        assert far.session.state is SessionState.SUSPENDED
        network.mend()
        far.changes.wait_for(lambda: far.session.state is SessionState.LOST)


def test_a_watch_reads_again_what_was_compacted_while_it_was_away(
    network: Proxy, far: Node, server: EtcdServer, world: World
) -> None:
    near = world.node()
    guard = near.join("a").record
    lease = near.session.grant(DAY, deadline=soon())
    near.create(guard, lease, one=b"1", two=b"2")
    watch = far.ledger.watch("log/", deadline=soon())
    idle = far.ledger.watch("members/", deadline=soon())
    network.cut()
    near.create(guard, lease, three=b"3")
    near.session.delete("log/one", guard=guard, deadline=soon())
    server.compact()
    network.mend()
    far.changes.wait_for(lambda: keys(watch.view()) == ["log/two", "log/three"])
    near.create(guard, lease, four=b"4")
    near.join("b")
    far.changes.wait_for(lambda: keys(watch.view()) == ["log/two", "log/three", "log/four"])
    far.changes.wait_for(lambda: keys(idle.view()) == ["members/a", "members/b"])


def test_a_watch_and_a_session_notice_that_etcd_lost_its_data(own: EtcdServer) -> None:
    with world_on(own.endpoint, ttl=1).open() as world:
        node = world.node()
        for name in "abc":
            node.join(name)
        watch = node.ledger.watch("members/", deadline=soon())
        assert len(watch.view().records) == 3
        own.kill()
        own.wipe()
        own.start()
        node.changes.wait_for(lambda: node.session.state is SessionState.LOST)
        node.changes.wait_for(lambda: not watch.view().records)
        world.node().join("new")
        node.changes.wait_for(lambda: keys(watch.view()) == ["members/new"])


def test_closing_does_not_wait_for_an_etcd_that_is_away(own: EtcdServer) -> None:
    with world_on(own.endpoint).open() as world, ThreadPoolExecutor(1) as pool:
        node = world.node()
        node.join("a")
        node.ledger.watch("members/", deadline=soon())
        with own.frozen():
            call = pool.submit(node.ledger.read, "log/", deadline=soon(30))
            time.sleep(0.2)
            began = time.monotonic()
            node.ledger.close()
            assert time.monotonic() - began < 5
            with pytest.raises(LedgerClosed):
                call.result(5)


def test_an_etcd_that_was_never_there_is_named_with_the_reason() -> None:
    with proxy(1) as network, world_on(network.endpoint).open() as world:
        network.cut()
        with pytest.raises(LedgerUnavailable, match=rf"attempts; 127\.0\.0\.1:{network.port}: "):
            world.node().ledger.open_session(10, deadline=soon(0.5))
