"""The ledger in memory: the contract, and what it promises beyond the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llutil.ledgers import SessionState
from llutil.ledgers.memory import MemoryLedger
from llutil.ledgers.memory_store import MemoryStore
from tests.support.ledger_contract import LedgerContract, World, soon
from tests.support.threads import new_threads


@pytest.fixture
def world() -> Iterator[World]:
    store = MemoryStore()
    world = World(lambda namespace, on_change: MemoryLedger(store, on_change, namespace=namespace))
    with world.open():
        yield world


class TestMemoryLedger(LedgerContract):
    pass


def test_a_closed_ledger_ends_its_sessions_for_all_others(world: World) -> None:
    one, two = world.node(), world.node()
    one.join("a")
    watch = two.ledger.watch("members/", deadline=soon())
    one.ledger.close()
    two.changes.wait_for(lambda: not watch.view().records)
    assert one.session.state is SessionState.LOST


def test_it_starts_no_thread(world: World) -> None:
    with new_threads() as found:
        node = world.node()
        node.join("a")
        node.ledger.watch("members/", deadline=soon())
        assert not found()


def test_a_callback_may_call_the_store(world: World) -> None:
    store = MemoryStore()
    seen: list[int] = []

    def look() -> None:
        seen.append(len(other.read("members/", deadline=soon()).records))

    ledger, other = MemoryLedger(store, look), MemoryLedger(store, lambda: None)
    ledger.watch("members/", deadline=soon())
    other.open_session(1, deadline=soon()).join("members/", "a", b"", deadline=soon())
    assert seen == [1]
