"""What many launches leave in a store: as much as few."""

from __future__ import annotations

import secrets
import time

import pytest

from llutil.backends.table import BACKENDS
from llutil.launcher.run_id import deduce_run_id
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.rendezvous.build_handler import build_driver
from llutil.rendezvous.config import RendezvousConfig
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from tests.support.etcd_servers import EtcdServer
from tests.support.served_servers import ServedServer
from tests.support.store_history import ServerPart, left_in
from tests.support.stores import STORES, Store
from tests.support.zookeeper_servers import client

pytestmark = [pytest.mark.launch, pytest.mark.parametrize("store", STORES)]

_LAUNCHES = 5
_LIMIT = 30.0


def _launch(store: Store, server: ServerPart, run_id: str, *, unique: bool) -> None:
    """A job of one node that succeeds, without its workers."""
    given = {"last_call_timeout": 0, **store.options}
    if store.has_namespaces:
        given["namespace"] = server.namespace
    config = RendezvousConfig(
        backend=BACKENDS[store.backend],
        endpoint=str(server.endpoint),
        run_id=run_id,
        min_nodes=1,
        max_nodes=1,
        local_addr="127.0.0.1",
        options=BACKENDS[store.backend].values(given, "rdzv_configs"),
        unique_run=unique,
    )
    driver = build_driver(config)
    driver.start()
    deadline = time.monotonic() + _LIMIT
    try:
        while True:
            assert time.monotonic() < deadline
            driver.wait(deadline)
            for instruction in driver.take_instructions():
                match instruction:
                    case do.StartWorkers(assignment=assignment):
                        driver.tell(see.WorkersEnded(assignment.stage, None))
                    case do.Finish(end=end):
                        assert isinstance(end, do.FinishedWell)
                        return
    finally:
        assert driver.close(deadline)


def _leases(server: ServerPart) -> set[str]:
    """The leases that are there: on ZooKeeper the namespace's, else all of the server's."""
    if isinstance(server.server, ServedServer):
        return set(server.server.ask("leases"))
    if isinstance(server.server, EtcdServer):
        with server.server.channel() as channel:
            request = etcdrpc.LeaseLeasesRequest()
            found = etcdrpc.LeaseStub(channel).LeaseLeases(request, timeout=_LIMIT).leases
            return {str(one.ID) for one in found}
    with client(server.server) as one:
        folder = f"/{server.namespace}/-/-"
        return set(one.get_children(folder)) if one.exists(folder) else set()


def test_launches_without_a_run_id_leave_nothing(store: Store, server: ServerPart) -> None:
    before = _leases(server)
    for _ in range(_LAUNCHES):
        _launch(store, server, deduce_run_id({}), unique=True)
    assert left_in(server) == []
    assert _leases(server) <= before  # those of other tests may expire meanwhile


def test_launches_under_one_run_id_leave_one_marker(store: Store, server: ServerPart) -> None:
    before = _leases(server)
    run_id = f"job-{secrets.token_hex(4)}"
    for _ in range(_LAUNCHES):
        _launch(store, server, run_id, unique=False)
    ((key, _, ttl),) = left_in(server)
    assert key.endswith(f"/log/{_LAUNCHES:06}.marker")
    assert 86000 < ttl <= 86400
    assert len(_leases(server) - before) == 1
