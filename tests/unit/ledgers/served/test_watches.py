"""What a client of a served ledger knows of what it watches, whatever the server says in which
order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.protocol import Record, View
from llutil.ledgers.served.messages import Call, Change, Unwatch, Watch
from llutil.ledgers.served.watches import Watches

A, B, C = Record("a", b"", 1), Record("b", b"", 2), Record("c", b"", 3)


class Connection:
    """Remembers what was sent. ``during_call`` is what happens before a call is answered."""

    inherited = False

    def __init__(self) -> None:
        self.sent: list[Call] = []
        self.during_call: Callable[[], object] = lambda: None

    def post(self, call: Call) -> None:
        self.sent.append(call)

    def call(self, what: str, call: Call, kind: Any, *, deadline: float) -> None:
        self.sent.append(call)
        self.during_call()


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def watches(connection: Connection) -> Watches:
    return Watches(connection, lambda: None)  # type: ignore[arg-type]


def test_a_watch_of_what_is_not_known_is_one_request_and_its_answer_the_first_view(
    connection: Connection, watches: Watches
) -> None:
    connection.during_call = lambda: watches.apply((Change(1, 5, (A,), whole=True),))
    watch = watches.add("f/", None, deadline=time.monotonic() + 1)
    assert connection.sent == [Watch(1, "f/", {})]
    assert watch.view() == View((A,), 5)
    assert watch.view() is watch.view()


def test_an_empty_scope_has_a_first_view_too(connection: Connection, watches: Watches) -> None:
    connection.during_call = lambda: watches.apply((Change(1, 5, whole=True),))
    assert watches.add("f/", None, deadline=time.monotonic() + 1).view() == View((), 5)


def test_a_first_answer_that_comes_late_brings_nothing_back(
    connection: Connection, watches: Watches
) -> None:
    """The connection was lost before the answer came. On the next one the server repeats the
    answer, and then answers the watch that was named to it again.
    """
    repeated, present = Change(1, 5, (A, B), whole=True), Change(1, 7, (B,), whole=True)
    connection.during_call = lambda: watches.apply((repeated,)) and watches.apply((present,))
    assert watches.add("f/", None, deadline=time.monotonic() + 1).view() == View((B,), 7)


def test_a_watch_that_gets_no_answer_is_not_open(connection: Connection, watches: Watches) -> None:
    def fail() -> None:
        raise LedgerUnavailable("no answer")

    connection.during_call = fail
    with pytest.raises(LedgerUnavailable):
        watches.add("f/", None, deadline=time.monotonic() + 1)
    assert connection.sent[1:] == [Unwatch(1)]
    watches.resume()
    assert len(connection.sent) == 2


def test_the_same_records_again_are_no_news(connection: Connection, watches: Watches) -> None:
    watch = watches.add("f/", View((A,), 5), deadline=time.monotonic() + 1)
    view = watch.view()
    assert connection.sent == [Watch(1, "f/", {"a": 1})]
    assert not watches.apply((Change(1, 6, (A,), whole=True), Change(1, 7)))
    assert watch.view() is view
    assert watches.apply((Change(1, 8, (B,), ("a",)),))
    assert watch.view() == View((B,), 8)


def test_a_change_in_slices_counts_when_it_is_complete(watches: Watches) -> None:
    watch = watches.add("f/", View((A,), 5), deadline=time.monotonic() + 1)
    before = watch.view()
    assert not watches.apply((Change(1, 8, (B,), whole=True, unfinished=True),))
    assert watch.view() is before
    assert watches.apply((Change(1, 8, (C,)),))
    assert watch.view() == View((B, C), 8)
    assert not watches.apply((Change(1, 9, (A,), ("b",), unfinished=True),))
    assert watches.apply((Change(1, 9, (), ("c",)),))
    assert watch.view() == View((A,), 9)


def test_slices_that_a_lost_connection_has_cut_off_are_forgotten(
    connection: Connection, watches: Watches
) -> None:
    watch = watches.add("f/", View((A,), 5), deadline=time.monotonic() + 1)
    assert not watches.apply((Change(1, 8, (B,), unfinished=True),))
    watches.resume()
    assert connection.sent[-1] == Watch(1, "f/", {"a": 1})
    assert watches.apply((Change(1, 9, (C,)),))
    assert watch.view() == View((A, C), 9)
