"""What happens to a ZooKeeper, done to a real one: killed, frozen, cut off; and what it does not let us do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from kazoo.client import KazooClient

from llutil.errors import ConfigError
from llutil.ledgers import (
    Created,
    LeaseGone,
    LedgerConflict,
    LedgerRefused,
    LedgerUnavailable,
    SessionState,
)
from llutil.ledgers.will import Will
from tests.integration.ledgers.zookeeper_world import world_on
from tests.ledger_contract import DAY, Node, World, keys, soon, wait_until
from tests.ledger_traffic import Reader, Writer
from tests.proxy import Proxy, proxy
from tests.zookeepers import ZooKeeperServer, zookeeper

pytestmark = [pytest.mark.zookeeper, pytest.mark.fault]


@pytest.fixture
def server(shared_zookeeper: ZooKeeperServer) -> ZooKeeperServer:
    """One ZooKeeper for all tests that do not kill it."""
    return shared_zookeeper


@pytest.fixture
def world(server: ZooKeeperServer, quiet: None) -> Iterator[World]:
    with world_on(server.endpoint).open() as world:
        yield world


@pytest.fixture
def own(temporary: object, quiet: None) -> Iterator[ZooKeeperServer]:
    """A ZooKeeper that a test may kill."""
    with zookeeper() as server:
        yield server


@pytest.fixture
def network(server: ZooKeeperServer) -> Iterator[Proxy]:
    with proxy(server.port) as one:
        yield one


@pytest.fixture
def far(network: Proxy, world: World) -> Iterator[Node]:
    """A node of ``world`` that is behind that network."""
    with world_on(network.endpoint, namespace=world.namespace).open() as beyond:
        yield beyond.node()


@contextmanager
def _kazoo(server: ZooKeeperServer) -> Iterator[KazooClient]:
    """What somebody else does there."""
    client = KazooClient(hosts=str(server.endpoint))
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()


def test_every_acknowledged_write_is_seen_in_order_although_zookeeper_is_killed_again_and_again(
    own: ZooKeeperServer,
) -> None:
    with world_on(own.endpoint).open() as world:
        reader = Reader(world.node(), "log/")
        with Writer(world.node()) as writer:
            for _ in range(2):
                time.sleep(0.3)
                own.kill()
                own.start()
            time.sleep(0.3)
        reader.check(writer.written())


@pytest.mark.parametrize("act", ["join", "create", "grant", "delete", "leave"])
def test_a_write_whose_answer_is_lost_is_read_back_and_not_repeated(
    network: Proxy, far: Node, world: World, act: str
) -> None:
    guard = far.join("a").record
    lease = far.session.grant(DAY, deadline=soon())
    far.create(guard, lease, old=b"old")
    acts: dict[str, tuple[Callable[[], object], object]] = {
        "join": (lambda: far.join("b", b"second").record.key, "members/b"),
        "create": (lambda: far.create(guard, lease, new=b"new").__class__, Created),
        "grant": (lambda: bool(far.session.grant(DAY, deadline=soon())), True),
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
    members = [] if act == "leave" else ["members/a"]
    assert list(near.read("members/")) == [*members, *(["members/b"] if act == "join" else [])]
    log = {} if act == "delete" else {"log/old": b"old"}
    assert near.read("log/") == {**log, **({"log/new": b"new"} if act == "create" else {})}


def test_calls_to_a_frozen_zookeeper_end_by_their_deadline_and_say_so(
    server: ZooKeeperServer, world: World
) -> None:
    node = world.node()
    guard = node.join("a").record
    node.read("log/")
    lease = node.session.grant(DAY, deadline=soon())
    calls: list[Callable[[], object]] = [
        lambda: node.ledger.read("log/", deadline=soon(0.4)),
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


def test_a_session_is_suspended_by_its_own_clock_and_connected_when_zookeeper_is_back(
    own: ZooKeeperServer,
) -> None:
    with world_on(own.endpoint, ttl=2).open() as world:
        node = world.node()
        session = node.session
        node.join("a")
        own.kill()
        node.changes.wait_for(lambda: session.state is SessionState.SUSPENDED)
        assert 0 <= time.monotonic() - (session.renewed + session.ttl) < 2
        own.start()
        node.changes.wait_for(lambda: session.state is SessionState.CONNECTED)
        assert node.read("members/") == {"members/a": b"me"}  # it restarts its sessions' time too


def test_a_session_that_zookeeper_let_expire_is_lost(network: Proxy, world: World) -> None:
    with world_on(network.endpoint, namespace=world.namespace, ttl=1).open() as beyond:
        far, near = beyond.node(), world.node()
        far.join("a")
        watch = near.ledger.watch("members/", deadline=soon())
        network.cut()
        near.changes.wait_for(lambda: not watch.view().records)
        assert far.session.state is SessionState.SUSPENDED
        network.mend()
        far.changes.wait_for(lambda: far.session.state is SessionState.LOST)


def test_a_watch_that_was_cut_off_reads_what_it_missed(
    network: Proxy, far: Node, world: World
) -> None:
    near = world.node()
    guard = near.join("a").record
    lease = near.session.grant(DAY, deadline=soon())
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


def test_what_a_lease_left_behind_is_swept_by_a_later_job_by_the_servers_time(
    server: ZooKeeperServer, world: World
) -> None:
    old, new = world.node(), world.node()
    guard = old.join("a", folder="run.x/members/").record
    lease = old.session.grant(0.3, deadline=soon())
    long = old.session.grant(DAY, deadline=soon())
    made = {"run.x/log/marker": b"m"}, {"run.y/log/marker": b"m"}
    old.session.create(made[0], guard=guard, lease=lease, deadline=soon())
    old.session.create(made[1], guard=guard, lease=long, deadline=soon())
    old.session.release(deadline=soon())

    def swept() -> bool:
        new.session.grant(DAY, deadline=soon())
        return not new.read("run.x/log/")

    wait_until(swept)
    assert new.read("run.y/log/") == {"run.y/log/marker": b"m"}
    with pytest.raises(LeaseGone):
        new.session.adopt(lease, deadline=soon())
    with _kazoo(server) as client:
        root = f"/{world.namespace}/-"
        wait_until(lambda: client.exists(f"{root}/run.x") is None)
        assert client.exists(f"{root}/run.y/log/=marker")


def test_a_will_ends_the_session_of_a_node_that_was_killed(world: World) -> None:
    one, two = world.node(), world.node()
    one.join("a")
    will = one.session.will
    assert will is not None
    Will.from_json(will.to_json()).prepare()()
    assert two.read("members/") == {}
    one.changes.wait_for(lambda: one.session.state is SessionState.LOST)


def test_a_time_that_the_server_does_not_grant_is_refused_with_the_one_it_does(
    world: World,
) -> None:
    with pytest.raises(ConfigError, match=r"lease_ttl is 0\.1 s, but .* grants 0\.4 s"):
        world.node().ledger.open_session(0.1, deadline=soon())


def test_a_chroot_that_is_not_there_is_refused_and_not_made(server: ZooKeeperServer) -> None:
    with (
        world_on(f"{server.endpoint}/not/there").open() as world,
        pytest.raises(LedgerRefused, match=r"the chroot '/not/there' is not there"),
    ):
        world.node().ledger.open_session(10, deadline=soon())
    with _kazoo(server) as client:
        assert client.exists("/not") is None
        client.create("/there")
    with world_on(f"{server.endpoint}/there").open() as world:
        assert keys(world.node().join("a").members) == ["members/a"]


def test_nodes_with_a_password_shut_out_who_has_another_or_none(server: ZooKeeperServer) -> None:
    right, wrong = {"user": "ann", "password": "secret"}, {"user": "ann", "password": "guess"}
    with world_on(server.endpoint, namespace="of/ann", **right).open() as world:
        world.node().join("a")
        for access, who in (
            (wrong, "the user 'ann' with this password"),
            ({}, "an anonymous client"),
        ):
            with world_on(server.endpoint, namespace="of/ann", **access).open() as others:
                node = others.node()
                with pytest.raises(LedgerRefused, match=f"{who} may not do this") as caught:
                    node.join("b")
                assert "guess" not in str(caught.value)
                with pytest.raises(LedgerRefused, match="may not do this"):
                    node.ledger.read("members/", deadline=soon())
        assert list(world.node().read("members/")) == ["members/a"]


def test_what_is_not_ours_is_named_and_left_alone(server: ZooKeeperServer, world: World) -> None:
    node = world.node()
    guard = node.join("a").record
    root = f"/{world.namespace}/-"
    with _kazoo(server) as client:
        client.create(f"{root}/log/=seal", b'{"theirs": 1}', makepath=True)
        client.create(f"{root}/members/note", b"theirs")
        with pytest.raises(LedgerConflict, match=r"=seal' holds what no node of ours wrote"):
            node.read("log/")
        assert list(node.read("members/")) == ["members/a"]
        node.session.delete("other/", "members/note", guard=guard, deadline=soon())
        assert client.get(f"{root}/log/=seal")[0] == b'{"theirs": 1}'
        assert client.get(f"{root}/members/note")[0] == b"theirs"


@contextmanager
def _listening(answer: bytes) -> Iterator[int]:
    """A server that says ``answer`` to whatever comes first, and hangs up. Its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                sock.recv(4096)
                sock.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_server_that_speaks_something_else_is_refused_by_name() -> None:
    with (
        _listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port,
        world_on(f"127.0.0.1:{port}").open() as world,
        pytest.raises(LedgerRefused, match=rf"127\.0\.0\.1:{port}: .* is not a ZooKeeper"),
    ):
        world.node().ledger.open_session(10, deadline=soon())


def test_a_zookeeper_that_was_never_there_is_named_with_the_reason() -> None:
    with world_on("127.0.0.1:1").open() as world:
        with pytest.raises(LedgerUnavailable, match=r"127\.0\.0\.1:1: .*refused"):
            world.node().ledger.open_session(10, deadline=soon(0.5))
        with pytest.raises(LedgerUnavailable, match="refused"):
            world.node().ledger.read("log/", deadline=soon(0.5))
