"""A node that is cut off from a real store on purpose loses its lease there, and comes back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llutil.events.events import Events
from llutil.ledgers import SessionState
from llutil.ledgers.cut_ledger import cut_ledger_opener
from tests.integration.ledgers.conftest import joined
from tests.support.etcd_servers import EtcdServer
from tests.support.ledger_contract import Changes, soon
from tests.support.served_servers import ServedServer
from tests.support.stores import ETCD, SERVED, ZOOKEEPER, Server, Store
from tests.support.zookeeper_servers import ZooKeeperServer

pytestmark = [pytest.mark.fault, pytest.mark.etcd, pytest.mark.zookeeper]

TTL, CUT = 2.0, 3.0


def _cut_off(store: Store, server: Server) -> None:
    changes, own_changes = Changes(), Changes()
    with Events() as page:
        opener = cut_ledger_opener(
            lambda on_change: store.ledger(server.endpoint, namespace="cut", on_change=on_change),
            page.cut_order,
        )
        own, other = (
            opener(own_changes),
            store.ledger(server.endpoint, namespace="cut", on_change=changes),
        )
        try:
            session = joined(own, TTL)
            watch = other.watch("members/", deadline=soon())
            end, deadline = 0.0, soon(60)
            while watch.view().records:
                if time.monotonic() >= end:  # once more, if the store was too busy to notice
                    page.cut_order.give(CUT)
                    end = time.monotonic() + CUT + 0.2
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert session.state is not SessionState.CONNECTED
            own_changes.wait_for(lambda: session.state is SessionState.LOST)
            again = own.open_session(30.0, deadline=soon())
            again.join("members/", "b", b"me", deadline=soon())
            changes.wait_for(lambda: [one.name for one in watch.view().records] == ["b"])
            again.release(deadline=soon())
        finally:
            own.close()
            other.close()


def test_a_node_that_is_cut_off_loses_its_lease_in_each_store_and_comes_back(
    shared_etcd: EtcdServer, shared_zookeeper: ZooKeeperServer, shared_served: ServedServer
) -> None:
    servers = [(ETCD, shared_etcd), (ZOOKEEPER, shared_zookeeper), (SERVED, shared_served)]
    with ThreadPoolExecutor(len(servers)) as threads:
        done = [threads.submit(_cut_off, store, server) for store, server in servers]
        for one in done:
            one.result()
