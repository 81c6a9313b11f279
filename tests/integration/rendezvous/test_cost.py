"""What a round costs etcd, counted by etcd itself: requests by kind, and writes, as proposals to its log.

A node makes four requests: for a lease, to join, for one stream with all its watches, to report. The leader makes
four more for them all: for the generation's lease, for what was reported before it led, for the assignment, and for
the verdict. Cleaning up is one request more, and leaving one for each node.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.ledger import EtcdLedger
from llutil.rendezvous import instructions as do
from llutil.rendezvous import observations as see
from llutil.rendezvous.driver import Driver, Order
from llutil.rendezvous.layout import Layout
from llutil.rendezvous.records import Member
from llutil.rendezvous.rules import Rules
from tests.drivers import Port
from tests.servers import EtcdServer

pytestmark = [pytest.mark.etcd]

_SOON = 30.0  # seconds
_FREE = {"LeaseKeepAlive", "Authenticate"}  # not counted: time alone says how many there are


class _Count:
    """Requests since it was last asked, by kind, and ``writes``."""

    def __init__(self, server: EtcdServer) -> None:
        self._server = server
        self._before = self._now()

    def _now(self) -> Counter[str]:
        kinds = {kind: n for kind, n in self._server.requests().items() if kind not in _FREE}
        writes = sum(self._server.metrics("etcd_server_proposals_applied_total").values())
        return Counter({**kinds, "writes": writes})

    def since(self) -> dict[str, int]:
        now = self._now()
        before, self._before = self._before, now
        return dict(now - before)


@contextmanager
def _started(server: EtcdServer, count: int) -> Iterator[list[Driver]]:
    """Nodes that all have to be there. Their leases are long, so that none is renewed meanwhile."""
    rules = Rules(min_nodes=count, max_nodes=count, lease_ttl=60.0)
    config = EtcdConfig(endpoints=(server.endpoint,))
    drivers = []
    with ExitStack() as stack:
        for number in range(count):
            member = Member(
                node="", name=f"n{number}", host="here", address="10.0.0.1", role="worker", nproc=1
            )
            open_ledger = functools.partial(EtcdLedger, config)
            drivers.append(Driver(rules, member, Layout("run"), open_ledger, Port))
            stack.callback(drivers[-1].close, time.monotonic() + _SOON)
            drivers[-1].start()
        yield drivers


def _orders(drivers: list[Driver]) -> list[Order]:
    """One order of each."""
    found: list[Order] = []
    deadline = time.monotonic() + _SOON
    for driver in drivers:
        orders: tuple[Order, ...] = ()
        while not orders and time.monotonic() < deadline:
            driver.wait(deadline)
            orders = driver.orders()
        found += orders
    assert len(found) == len(drivers)
    return found


@pytest.mark.parametrize("count", [2, 8, 16])
def test_what_a_round_costs(server: EtcdServer, count: int) -> None:
    counted = _Count(server)
    with _started(server, count) as drivers:
        for order in _orders(drivers):
            assert isinstance(order, do.StartWorkers)
            stage = order.assignment.stage
        sealing = counted.since()
        for driver in drivers:
            driver.tell(see.WorkersEnded(stage, succeeded=True))
        assert all(isinstance(order, do.Finish) for order in _orders(drivers))
        ending = counted.since()
    assert sealing == {
        "LeaseGrant": count + 1,
        "Txn": count + 1,
        "Watch": count,
        "Range": 1,
        "writes": 2 * count + 2,
    }
    reports, verdict, sweep, leaving = count, 1, 1, count
    assert ending == {
        "Txn": reports + verdict + sweep,
        "LeaseRevoke": leaving,
        "writes": reports + verdict + sweep + leaving,
    }
