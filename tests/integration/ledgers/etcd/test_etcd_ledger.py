"""The ledger on a real etcd: what it promises beyond the contract of all ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError
from llutil.ledgers import SessionState, Watch
from llutil.ledgers.etcd import connection
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from tests.integration.ledgers.conftest import world_on
from tests.support.etcd_servers import EtcdServer, etcd
from tests.support.ledger_contract import DAY, World, keys, renew_often, soon, wait_until
from tests.support.threads import new_threads, no_thread_left

pytestmark = pytest.mark.etcd


def _holds_only(watch: Watch, key: str) -> bool:
    return keys(watch.view()) == [key]


def test_a_session_is_renewed_again_and_again_by_one_thread(
    server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew_often(monkeypatch)
    with world_on(server.endpoint).open() as world, new_threads() as found:
        session = world.node().session
        assert len(found()) == 1
        for _ in range(4):
            before = session.renewed_at
            wait_until(lambda: session.renewed_at > before)  # noqa: B023 - called at once
            assert session.state is SessionState.CONNECTED
        assert len(found()) == 1


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (1, r"lease_ttl is 1 s, but etcd at 127\.0\.0\.1:\d+ grants no lease shorter than 2 s"),
        (2.5, "etcd counts leases in whole seconds"),
        (0.5, "etcd counts leases in whole seconds"),
        (float("inf"), "etcd counts leases in whole seconds"),
    ],
)
def test_a_ttl_that_etcd_does_not_grant_is_refused(ttl: float, expected: str) -> None:
    with (
        etcd("--heartbeat-interval", "100", "--election-timeout", "1000") as slow,
        world_on(slow.endpoint, ttl=ttl).open() as world,
    ):
        with pytest.raises(ConfigError, match=expected):
            world.node().join("a")
        with slow.channel() as channel:
            leases = etcdrpc.LeaseStub(channel).LeaseLeases(etcdrpc.LeaseLeasesRequest(), timeout=5)
            assert not leases.leases


def test_records_of_other_software_in_our_folders_are_shown_unchanged(
    server: EtcdServer, world: World
) -> None:
    node = world.node()
    watch = node.ledger.watch("log/", deadline=soon())
    folder = f"/{world.namespace}/-/log/".encode()
    with server.channel() as channel:
        kv = etcdrpc.KVStub(channel)
        kv.Put(etcdrpc.PutRequest(key=folder + b"theirs", value=b"\xff not JSON"), timeout=5)
        kv.Put(etcdrpc.PutRequest(key=folder + b"\xff\xfe", value=b""), timeout=5)
    node.changes.wait_for(lambda: len(watch.view().records) == 2)
    first, second = watch.view().records
    assert (first.key, first.value, first.lease) == ("log/theirs", b"\xff not JSON", "")
    assert second.key == "log/\udcff\udcfe"


def test_after_many_watches_and_nodes_no_watch_and_no_thread_is_left(server: EtcdServer) -> None:
    with no_thread_left(), new_threads() as found:
        for _ in range(5):
            with world_on(server.endpoint).open() as world:
                node = world.node()
                for index in range(10):
                    node.ledger.watch("members/", deadline=soon()).close()
                    watch = node.ledger.watch(f"members/n{index}", deadline=soon())
                    node.join(f"n{index}")
                    node.changes.wait_for(partial(_holds_only, watch, f"members/n{index}"))
                    watch.close()
                wait_until(lambda: not server.metrics("etcd_debugging_mvcc_watcher_total"))
                # One thread for the session, one for the watches, and two of gRPC's for a stream,
                # once those of the last round have ended.
                wait_until(lambda: len(found()) <= 4)


def test_ipv6_endpoints_work() -> None:
    with etcd(host="::1") as server:
        assert str(server.endpoint).startswith("[::1]:")
        with world_on(Endpoint("::1", server.port)).open() as world:
            world.node().join("a")


class _ForgetfulLeases(etcdrpc.LeaseServicer):  # type: ignore[misc]
    """An etcd whose leader does not know a granted lease yet: its first answers are wrong."""

    def __init__(self, wrong: int) -> None:
        self._wrong = wrong
        self.renewals = 0

    def LeaseGrant(self, request: Any, context: object) -> Any:  # noqa: N802 - gRPC's name for it
        return etcdrpc.LeaseGrantResponse(ID=request.ID, TTL=request.TTL)

    def LeaseKeepAlive(self, requests: Iterator[Any], context: object) -> Iterator[Any]:  # noqa: N802
        for request in requests:
            self.renewals += 1
            ttl = 0 if self.renewals <= self._wrong else 1
            yield etcdrpc.LeaseKeepAliveResponse(ID=request.ID, TTL=ttl)


class _EmptyStore(etcdrpc.KVServicer):  # type: ignore[misc]
    """An etcd without keys."""

    def Range(self, request: Any, context: object) -> Any:  # noqa: N802
        return etcdrpc.RangeResponse()


@pytest.mark.parametrize(("wrong", "state"), [(1, "connected"), (2, "lost")])
def test_a_session_is_lost_only_when_etcd_says_so_twice(wrong: int, state: str) -> None:
    leases = _ForgetfulLeases(wrong)
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        etcdrpc.add_LeaseServicer_to_server(leases, server)
        etcdrpc.add_KVServicer_to_server(_EmptyStore(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with world_on(Endpoint("127.0.0.1", port), ttl=1).open() as world:
                session = world.node().session
                opened = session.renewed_at
                if state == "lost":
                    world.nodes[0].changes.wait_for(lambda: session.state is SessionState.LOST)
                else:
                    wait_until(lambda: session.renewed_at > opened)
                    assert session.state is not SessionState.LOST
                assert leases.renewals >= 2
        finally:
            server.stop(None).wait()


def _start_to_seal(world: World, count: int) -> None:
    nodes = [world.node() for _ in range(count)]
    logs: list[Watch] = []
    for index, node in enumerate(nodes):
        joined = node.session.join("members/", f"n{index}", b"me", reads=("log/",), deadline=soon())
        logs.append(node.ledger.watch("log/", since=joined.views["log/"], deadline=soon()))
        *older, _ = joined.members.records
        if older:
            key = older[-1].key
            node.ledger.watch(key, since=joined.members.only(key), deadline=soon())
        else:
            leader, guard = node, joined.record
            members = node.ledger.watch("members/", since=joined.members, deadline=soon())
    leader.changes.wait_for(lambda: len(members.view().records) == count)
    leader.create(guard, leader.session.grant_lease(DAY, deadline=soon()), seal=b"all")
    for node, log in zip(nodes, logs, strict=True):
        node.changes.wait_for(partial(_holds_only, log, "log/seal"))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_from_start_to_seal_a_node_sends_three_requests_and_the_leader_two_more(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_ATTEMPT_TIMEOUT", (30.0, 30.0))  # nothing is sent twice
    with etcd() as server, world_on(server.endpoint).open() as world:
        _start_to_seal(world, count)
        requests = server.requests()
    requests.pop("LeaseKeepAlive", None)
    # Two writes for each node and one for the seal make 2N + 1. One more grants the generation's
    # lease in its first round.
    assert requests == {"LeaseGrant": count + 1, "Txn": count + 1, "Watch": count}
