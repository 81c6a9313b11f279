"""Three members of one etcd, of which one at a time dies, freezes, or was never there."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llutil.ledgers import SessionState
from llutil.ledgers.endpoints import Endpoint
from tests.integration.ledgers.conftest import world_on
from tests.ledger_contract import World, keys, soon
from tests.ledger_traffic import Reader, Writer
from tests.ports import free_ports
from tests.servers import EtcdServer, etcd_cluster

pytestmark = [pytest.mark.etcd, pytest.mark.fault]


@pytest.fixture(scope="module")
def members() -> Iterator[list[EtcdServer]]:
    with etcd_cluster() as servers:
        yield servers


def _leader_first(members: list[EtcdServer]) -> list[EtcdServer]:
    return sorted(members, key=lambda member: not member.is_leader())


def _world(members: list[EtcdServer]) -> World:
    return world_on(*(member.endpoint for member in members), ttl=3)


def test_no_write_is_lost_and_no_watch_broken_when_the_leader_dies() -> None:
    with etcd_cluster() as cluster:
        members = _leader_first(cluster)
        with _world(members).open() as world:
            reader = Reader(world.node(), "log/")
            with Writer(world.node()) as writer:
                time.sleep(0.3)
                members[0].kill()
                time.sleep(1)
                members[0].start()
            reader.check(writer.written())
            assert writer.longest < 5
            assert all(node.session.state is SessionState.CONNECTED for node in world.nodes)


def test_a_frozen_member_costs_an_attempt_and_all_move_on(members: list[EtcdServer]) -> None:
    # A follower: a leader that is frozen for longer than a lease's time revokes the lease when it wakes up,
    # before it learns that it leads no more (etcd-io/etcd#15247), and then the session is truly over.
    members = _leader_first(members)[::-1]
    with _world(members).open() as world:
        reader = Reader(world.node(), "log/")
        reader.node.join("reader")
        with Writer(world.node()) as writer:
            time.sleep(0.3)
            with members[0].frozen():
                time.sleep(4)  # the reader's watch moves when its session is renewed elsewhere
                moved = reader.watch.view()
        reader.check(writer.written())
        assert 0.5 < writer.longest < 3.5
        assert len(moved.records) > 20


@pytest.mark.parametrize("first", ["dead", "unknown"])
def test_an_endpoint_that_is_not_there_does_no_harm(members: list[EtcdServer], first: str) -> None:
    absent = {
        "dead": Endpoint("127.0.0.1", free_ports(1)[0]),
        "unknown": Endpoint("no-such-host.invalid", 2379),
    }[first]
    with world_on(absent, *(member.endpoint for member in members)).open() as world:
        node = world.node()
        watch = node.ledger.watch("members/", deadline=soon())
        node.join("a")
        node.changes.wait_for(lambda: keys(watch.view()) == ["members/a"])
