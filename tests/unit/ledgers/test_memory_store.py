"""The store in memory: leases that expire, and what a transaction costs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from llutil.ledgers import LeaseGone, SessionLost, SessionState
from llutil.ledgers.memory import MemoryLedger, MemorySession
from llutil.ledgers.memory_store import MemoryStore, Transaction
from tests.support.ledger_contract import Changes, keys, soon
from tests.support.python_steps import steps_of

_DAY = 86400.0


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def store(clock: _Clock) -> MemoryStore:
    return MemoryStore(clock)


def _session(store: MemoryStore, ttl: float = 10) -> tuple[MemoryLedger, MemorySession, Changes]:
    changes = Changes()
    ledger = MemoryLedger(store, changes, expires=True)
    return ledger, ledger.open_session(ttl, deadline=soon()), changes


# -- leases that expire


def test_a_lease_without_ttl_never_expires(store: MemoryStore, clock: _Clock) -> None:
    ledger = MemoryLedger(store, lambda: None)
    session = ledger.open_session(1, deadline=soon())
    session.grant_lease(1, deadline=soon())
    assert store.expire() == math.inf
    clock.now += _DAY
    store.expire()
    assert session.state is SessionState.CONNECTED
    assert len(store.leases) == 2


def test_a_session_ends_when_it_was_not_renewed_for_its_ttl(
    store: MemoryStore, clock: _Clock
) -> None:
    _, session, changes = _session(store)
    other, _, others_changes = _session(store, _DAY)
    watch = other.watch("members/", deadline=soon())
    session.join("members/", "a", b"", deadline=soon())
    others_changes.wait_for(lambda: keys(watch.view()) == ["members/a"])
    clock.now += 9
    assert store.expire() == 1
    session.renew()
    assert store.expire() == 10
    clock.now += 10
    assert session.state is SessionState.CONNECTED
    assert store.expire() == _DAY - 19
    assert session.state is SessionState.LOST
    others_changes.wait_for(lambda: not watch.view().records)
    changes.wait_for_call()


def test_a_session_that_is_over_refuses_every_call(store: MemoryStore, clock: _Clock) -> None:
    _, session, _ = _session(store)
    own = session.join("members/", "a", b"", deadline=soon()).record
    lease = session.grant_lease(_DAY, deadline=soon())
    clock.now += 10
    store.expire()
    calls: list[Callable[[], object]] = [
        session.renew,
        lambda: session.join("members/", "a", b"", deadline=soon()),
        lambda: session.create({"x": b""}, guard=own, lease=lease, deadline=soon()),
        lambda: session.delete("x", guard=own, deadline=soon()),
        lambda: session.grant_lease(_DAY, deadline=soon()),
        lambda: session.keep_alive(lease, deadline=soon()),
    ]
    for call in calls:
        with pytest.raises(SessionLost, match=session.lease):
            call()
    session.release(deadline=soon())


def test_a_granted_lease_lives_as_long_as_sessions_renew_it(
    store: MemoryStore, clock: _Clock
) -> None:
    _, one, _ = _session(store)
    _, two, _ = _session(store)
    own = one.join("members/", "a", b"", deadline=soon()).record
    lease = one.grant_lease(15, deadline=soon())
    one.create({"log/1": b""}, guard=own, lease=lease, deadline=soon())
    two.keep_alive(lease, deadline=soon())
    one.release(deadline=soon())
    for _ in range(4):
        clock.now += 9
        two.renew()
        store.expire()
    assert lease in store.leases
    two.release(deadline=soon())
    assert store.expire() == 15
    clock.now += 15
    store.expire()
    _, three, _ = _session(store)
    assert not three._ledger.read("log/", deadline=soon()).records
    with pytest.raises(LeaseGone):
        three.keep_alive(lease, deadline=soon())


def test_a_session_renews_on_when_a_lease_that_it_keeps_is_over(
    store: MemoryStore, clock: _Clock
) -> None:
    ledger, session, _ = _session(store)
    ledger.end_lease(session.grant_lease(_DAY, deadline=soon()), deadline=soon())
    session.renew()
    assert store.leases[session.lease].kept == set()


def test_a_server_that_was_stopped_gives_all_leases_that_time(
    store: MemoryStore, clock: _Clock
) -> None:
    _, one, _ = _session(store)
    clock.now += 4
    _, two, _ = _session(store)
    clock.now += 60
    store.extend(60)
    assert store.expire() == 6
    clock.now += 6
    assert store.expire() == 4
    assert (one.state, two.state) == (SessionState.LOST, SessionState.CONNECTED)


# -- ledgers that come and go


def test_a_session_may_outlive_its_ledger_until_it_expires(
    store: MemoryStore, clock: _Clock
) -> None:
    ledger, session, changes = _session(store)
    own = session.join("members/", "a", b"", deadline=soon()).record
    ledger.close(end_sessions=False)
    assert session.state is SessionState.CONNECTED
    other = MemoryLedger(store, lambda: None)
    assert other.read("members/", deadline=soon()).records == (own,)
    clock.now += 10
    store.expire()
    assert session.state is SessionState.LOST
    assert not other.read("members/", deadline=soon()).records
    assert not changes._event.is_set()


def test_a_closed_ledger_leaves_nothing_in_the_store(store: MemoryStore) -> None:
    ledger, session, _ = _session(store)
    session.join("members/", "a", b"", deadline=soon())
    ledger.watch("members/", deadline=soon())
    ledger.watch("log/x", deadline=soon()).close()
    ledger.close()
    assert (store.watches, store.ledgers, store.leases) == ({}, set(), {})
    assert not list(store.records.below("/"))


def test_a_record_that_was_put_again_stays_when_its_first_lease_ends(store: MemoryStore) -> None:
    with store.transaction() as txn:
        first, second = store.new_lease(), store.new_lease()
        txn.put("/n/-/", {"key": b"1"}, first)
        txn.put("/n/-/", {"key": b"2"}, second)
        txn.end_lease(first)
        assert [one.value for one in txn.view("/n/-/", "key").records] == [b"2"]


# -- what a transaction costs


def _filled(others: int) -> tuple[MemoryStore, MemoryLedger]:
    """A store with so many other records, leases, ledgers and watches, and a ledger that watches
    two of the scopes of the tests.
    """
    store = MemoryStore(_Clock())
    for index in range(others):
        ledger = MemoryLedger(store, lambda: None, namespace=f"n{index % 3}", expires=True)
        session = ledger.open_session(10 + index, deadline=soon())
        session.join(f"members{index % 2}/", f"{index}", b"", deadline=soon())
        ledger.watch(f"members{index}/", deadline=soon())
        with store.transaction() as txn:
            txn.put(ledger.namespace, {f"log/{index}": b"", f"r/{index}/x": b""}, "")
    ledger = MemoryLedger(store, lambda: None, namespace="n0", expires=True)
    ledger.watch("my/members/", deadline=soon())
    ledger.watch("my/members/b", deadline=soon())
    return store, ledger


def _costs(others: int) -> dict[str, int]:
    store, ledger = _filled(others)
    costs: dict[str, int] = {}

    def measure(name: str, act: Callable[[Transaction], object]) -> None:
        def transaction() -> None:
            with store.transaction() as txn:
                act(txn)

        costs[name] = steps_of(transaction)

    lease = ledger.open_session(5, deadline=soon()).lease
    values = {"my/members/a": b"", "my/members/b": b"", "my/log/1": b"", "my/log/deep/2": b""}
    measure("put", lambda txn: txn.put(ledger.namespace, values, lease))
    measure("view of a folder", lambda txn: txn.view(ledger.namespace, "my/members/"))
    measure("view of a key", lambda txn: txn.view(ledger.namespace, "my/members/a"))
    measure("delete of a key", lambda txn: txn.delete(ledger.namespace, ["my/members/a"]))
    measure("delete of a folder", lambda txn: txn.delete(ledger.namespace, ["my/log/"]))
    measure("end of a lease", lambda txn: txn.end_lease(lease))
    costs["close"] = steps_of(ledger.close)
    return costs


def test_a_transaction_costs_what_it_touches_however_much_else_there_is() -> None:
    _costs(10)  # the first time is another one
    assert _costs(10) == _costs(300)


def test_a_renewal_and_an_expiry_cost_the_same_with_many_leases() -> None:
    def cost(others: int) -> tuple[int, int]:
        store, ledger = _filled(others)
        session = ledger.open_session(5, deadline=soon())
        return steps_of(session.renew), steps_of(store.expire)

    cost(10)  # the first time is another one
    assert cost(10) == cost(300)


def test_a_view_that_has_not_changed_takes_no_transaction(store: MemoryStore) -> None:
    ledger, session, _ = _session(store)
    watch = ledger.watch("members/", deadline=soon())
    with store.transaction():  # a second transaction would wait for ever
        assert watch.view() is watch.shown
    session.join("members/", "a", b"", deadline=soon())
    assert keys(watch.view()) == ["members/a"]
