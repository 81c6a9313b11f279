"""What a request without an answer leaves to be done is done later."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.memory import MemorySession
from llutil.ledgers.memory_store import MemoryStore
from llutil.rendezvous.driver.ledger_requests import LedgerRequests
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
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


class _Moves(FaultyLedger):
    """Its sessions are in the store of that name, and have no other's records."""

    store_name = "one"

    def open_session(self, ttl: float, *, deadline: float) -> MemorySession:
        session = super().open_session(ttl, deadline=deadline)
        session.store_name = self.store_name
        return session


def test_a_lease_in_another_store_is_said_to_be_and_what_was_in_the_last_one_is_forgotten() -> None:
    ledger = _Moves(MemoryStore(), lambda: None)
    requests = LedgerRequests(ledger, RUN, 10.0, RecordReader(RUN))
    old = marker(Cause.SUCCEEDED, (1, 1))
    with ledger.store.transaction() as transaction:
        transaction.put(ledger.namespace, {RUN.key(old): encode(old)}, ledger.store.new_lease())
    said = []
    for ledger.store_name in ("one", "one", "two", "two"):
        said.append(requests.answer(do.TakeLease(1, "test"), _soon()))
        requests.answer(do.Join(2, member("a"), "test"), _soon())
    assert [one.new_store for one in said if isinstance(one, see.LeaseTaken)] == [
        False,
        False,
        True,
        False,
    ]
    ledger.close()


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
    requests.delete_stale(do.DeleteStale(Stage(3, 1), "test"), (), _soon())
    assert lease in ledger.store.leases
    ledger.keeps_leases = False
    requests.delete_stale(do.DeleteStale(Stage(3, 1), "test"), (), _soon())
    assert lease not in ledger.store.leases
