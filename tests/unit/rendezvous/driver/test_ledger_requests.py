"""What a request without an answer leaves to be done is done later."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.memory_store import MemoryStore
from llutil.rendezvous.driver.ledger_requests import LedgerRequests
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.record_codec import encode
from llutil.rendezvous.protocol.records import Cause, Stage
from tests.support.memory_rendezvous import RUN, FaultyLedger
from tests.support.rendezvous_values import marker, member


def _soon() -> float:
    return time.monotonic() + 10


class _KeepsLeases(FaultyLedger):
    """Does not answer who wants to end a lease, as long as it ``keeps_leases``."""

    keeps_leases = False

    def end_lease(self, lease: str, *, deadline: float) -> None:
        if self.keeps_leases:
            raise LedgerUnavailable("the store is away")
        super().end_lease(lease, deadline=deadline)


@pytest.fixture
def ledger() -> Iterator[_KeepsLeases]:
    ledger = _KeepsLeases(MemoryStore(), lambda: None)
    yield ledger
    ledger.close()


def test_a_generations_lease_that_could_not_be_ended_is_ended_the_next_time(
    ledger: _KeepsLeases,
) -> None:
    requests = LedgerRequests(ledger, RUN, 10.0, RecordReader(RUN))
    old = marker(Cause.SUCCEEDED, (1, 1))
    with ledger.store.transaction() as transaction:
        lease = ledger.store.new_lease()
        transaction.put(ledger.namespace, {RUN.key(old): encode(old)}, lease)
    requests.answer(do.TakeLease(1, "test"), _soon())
    requests.answer(do.Join(2, member("a"), "test"), _soon())
    ledger.keeps_leases = True
    requests.delete_stale(Stage(3, 1), (), _soon())
    assert lease in ledger.store.leases
    ledger.keeps_leases = False
    requests.delete_stale(Stage(3, 1), (), _soon())
    assert lease not in ledger.store.leases
