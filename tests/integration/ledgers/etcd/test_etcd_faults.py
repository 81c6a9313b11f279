"""Faults of an etcd: it compacts its history, it loses its data, a member freezes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llutil.ledgers import SessionState
from tests.integration.ledgers.conftest import world_on
from tests.support.etcd_servers import EtcdServer, etcd, etcd_cluster
from tests.support.ledger_contract import DAY, World, keys, renew_often, soon, wait_until
from tests.support.ledger_traffic import Reader, Writer
from tests.support.proxy import proxy
from tests.support.stores import leader_first

pytestmark = [pytest.mark.etcd, pytest.mark.fault]


@pytest.fixture
def server() -> Iterator[EtcdServer]:
    """A server of one test alone, which may make it forget its past."""
    with etcd() as server:
        yield server


def test_a_watch_reads_its_scope_again_if_etcd_compacted_the_events_that_it_missed(
    server: EtcdServer, world: World
) -> None:
    near = world.node()
    with (
        proxy(server.port) as network,
        world_on(network.endpoint, namespace=world.namespace).open() as beyond,
    ):
        far = beyond.node()
        guard = near.join("a").record
        lease = near.session.grant_lease(DAY, deadline=soon())
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


def test_a_watch_and_a_session_notice_that_etcd_lost_its_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renew_often(monkeypatch)
    with etcd() as own, world_on(own.endpoint).open() as world:
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


def test_a_frozen_member_costs_an_attempt_and_then_the_next_one_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renew_often(monkeypatch)
    # A follower is frozen. A leader that is frozen for longer than a lease's ttl revokes the lease
    # when it goes on, before it learns that it is no longer the leader (etcd-io/etcd#15247). Then
    # the session is really over.
    with etcd_cluster() as cluster:
        members = leader_first(cluster)[::-1]
        with world_on(*(member.endpoint for member in members)).open() as world:
            reader = Reader(world.node(), "log/")
            reader.node.join("reader")
            with Writer(world.node()) as writer:
                time.sleep(0.3)
                with members[0].frozen():
                    before = writer.count
                    # The reader's watch changes endpoints when its session is renewed at another.
                    wait_until(lambda: len(reader.watch.view().records) > before + 20)
            reader.check(writer.written())
            assert writer.longest > 0.5
