"""A ledger that is cut off from its store on purpose, and otherwise is as the one that it has."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from llutil.events.events import Events
from llutil.ledgers import LedgerUnavailable
from llutil.ledgers.cut_ledger import cut_ledger_opener
from llutil.ledgers.memory import MemoryLedger, MemorySession
from llutil.ledgers.memory_store import MemoryStore
from llutil.ledgers.protocol import Ledger
from tests.support.ledger_contract import Changes, LedgerContract, World, soon

LONG = 3600.0


@pytest.fixture
def page() -> Iterator[Events]:
    page = Events.private()
    yield page
    page.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def world(store: MemoryStore, page: Events) -> Iterator[World]:
    def make(namespace: str, changes: object) -> Ledger:
        assert callable(changes)
        opener = cut_ledger_opener(
            lambda on_change: MemoryLedger(store, on_change, namespace=namespace), page.cut_order
        )
        return opener(changes)

    world = World(make)
    with world.open():
        yield world


class TestCutLedger(LedgerContract):
    pass


def cut_off(page: Events, world: World) -> None:
    """Order it for long, and wait until it is so."""
    page.cut_order.give(LONG)
    deadline = soon()
    while True:
        assert time.monotonic() < deadline, "it was never cut off"
        try:
            world.nodes[0].ledger.read("log/", deadline=time.monotonic() + 0.001)
        except LedgerUnavailable as error:
            if "cut off from its store, on purpose" in str(error):
                return


def another_joins(store: MemoryStore) -> None:
    """One that is not cut off."""
    session = MemoryLedger(store, lambda: None, namespace="tests").open_session(1, deadline=soon())
    session.join("members/", "b", b"", deadline=soon())


def test_while_it_is_cut_off_no_call_is_answered_and_watches_show_what_they_showed(
    world: World, page: Events, store: MemoryStore
) -> None:
    node = world.node()
    joined = node.join("a")
    watch = node.ledger.watch("members/", deadline=soon())
    before = watch.view()
    cut_off(page, world)
    another_joins(store)
    calls = [
        lambda deadline: node.ledger.read("log/", deadline=deadline),
        lambda deadline: node.ledger.watch("log/", deadline=deadline),
        lambda deadline: node.ledger.open_session(10, deadline=deadline),
        lambda deadline: node.ledger.end_lease("1", deadline=deadline),
        lambda deadline: node.session.join("members/", "c", b"", deadline=deadline),
        lambda deadline: node.session.grant_lease(10, deadline=deadline),
        lambda deadline: node.session.keep_alive("1", deadline=deadline),
        lambda deadline: node.session.delete("log/", guard=joined.record, deadline=deadline),
        lambda deadline: node.session.create(
            {"log/x": b""}, guard=joined.record, lease="1", deadline=deadline
        ),
        lambda deadline: node.session.release(deadline=deadline),
    ]
    for call in calls:
        with pytest.raises(LedgerUnavailable, match="cut off from its store, on purpose"):
            call(time.monotonic() + 0.001)
    assert watch.view() is before


def test_a_call_that_has_the_time_waits_for_the_end_and_what_has_changed_is_announced(
    world: World, page: Events, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.node()
    node.join("a")
    watch = node.ledger.watch("members/", deadline=soon())
    # In the midst of the cut, however short that is.
    monkeypatch.setattr(MemorySession, "cut_off", lambda *_: another_joins(store))
    page.cut_order.give(0.05)
    node.changes.wait_for(lambda: len(watch.view().records) == 2)
    assert node.read("members/").keys() == {"members/a", "members/b"}


def test_its_end_does_not_wait_for_the_end_of_the_cut(world: World, page: Events) -> None:
    node = world.node()
    cut_off(page, world)
    ended = Changes()

    def wait() -> None:
        try:
            node.ledger.read("log/", deadline=soon(LONG))
        except Exception:
            ended()

    thread = threading.Thread(target=wait)
    thread.start()
    node.ledger.close()
    ended.wait_for_call()
    thread.join()
    assert not [one for one in threading.enumerate() if one.name == "llutil-cut"]
