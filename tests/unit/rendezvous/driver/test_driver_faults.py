"""One driver or two, and a store that is away, refuses, or hangs."""

from __future__ import annotations

import time

import pytest

from llutil.errors import LaunchError, RendezvousError
from llutil.ledgers.errors import LedgerRefused
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.record_codec import encode
from llutil.rendezvous.protocol.records import Assignment, Seat
from tests.support.memory_rendezvous import RUN, FaultyLedger, MemoryRendezvous, Node, Port

_DAY = 86400.0


def _error(node: Node) -> LaunchError:
    """What its agent is told instead of an instruction."""
    with pytest.raises(LaunchError) as raised:
        node.refuses_orders()
    return raised.value


def _ends_with(node: Node, kind: type[LaunchError], *words: str) -> None:
    error = _error(node)
    assert type(error) is kind
    assert all(word in str(error) for word in words), str(error)
    with pytest.raises(kind):  # and not only once
        node.driver.take_instructions()


@pytest.mark.parametrize("moment", ["at first", "joined", "running", "ended"])
def test_a_store_that_is_away_for_a_while_is_waited_for(
    rendezvous: MemoryRendezvous, moment: str
) -> None:
    def begin(ledger: FaultyLedger) -> None:
        ledger.away = moment == "at first"

    size = {"min_nodes": 2, "max_nodes": 2}
    first = rendezvous.node("a", before=begin, **size)
    assert not first.peek(0.1)
    first.ledger.away = moment in {"at first", "joined"}
    second = rendezvous.node("b", **size)
    begins = moment in {"running", "ended"}
    assert first.peek(10.0 if begins else 0.1) == begins
    first.ledger.away = False
    agreed = first.starts()
    assert second.starts() == agreed
    if moment == "running":
        first.ledger.away = True
        assert not first.peek(0.1)  # training goes on
    first.ledger.away = moment == "ended"
    for node in (first, second):
        node.succeeds()
    assert not first.peek(0.1) or moment != "ended"
    first.ledger.away = False
    for node in (first, second):
        assert node.ends(do.FinishedWell).assignment == agreed


def test_a_store_that_stays_away_is_given_up_with_its_last_word(
    rendezvous: MemoryRendezvous,
) -> None:
    def begin(ledger: FaultyLedger) -> None:
        ledger.away = True

    began = time.monotonic()
    node = rendezvous.node("a", min_nodes=1, max_nodes=1, timeout=0.3, before=begin)
    why = node.ends(do.GaveUp).why
    assert time.monotonic() - began >= 0.3
    assert "did not answer for 0.3 s" in why
    assert "the store is away" in why


def test_nodes_that_nobody_joins_are_counted_in_the_reason(rendezvous: MemoryRendezvous) -> None:
    node = rendezvous.node("a", min_nodes=3, max_nodes=3)
    while not rendezvous.keys(RUN.members):
        assert not node.peek(0.01)
    node.limit_wait(0.3)
    assert "1 of 3 nodes are ready; here: a" in node.ends(do.GaveUp).why
    assert rendezvous.keys(RUN.members) == []


def test_a_store_that_refuses_ends_the_rendezvous_at_once(rendezvous: MemoryRendezvous) -> None:
    def begin(ledger: FaultyLedger) -> None:
        ledger.refusing = True

    node = rendezvous.node("a", min_nodes=1, max_nodes=1, before=begin)
    _ends_with(node, LedgerRefused, "the store refuses")


def test_a_store_that_refuses_while_workers_run_ends_the_node_and_its_lease(
    rendezvous: MemoryRendezvous,
) -> None:
    first, second = rendezvous.gang("a", "b")
    first.ledger.refusing = True
    first.succeeds()
    _ends_with(first, LedgerRefused, "the store refuses")
    assert "lost" in second.stops().why


def test_a_store_that_refuses_only_the_last_word_changes_no_result(
    rendezvous: MemoryRendezvous,
) -> None:
    def begin(ledger: FaultyLedger) -> None:
        ledger.keeps_sessions = True

    node = rendezvous.node("a", min_nodes=1, max_nodes=1, before=begin)
    node.starts()
    node.succeeds()
    node.ends(do.FinishedWell)


def test_a_session_whose_record_was_deleted_is_ended_when_the_node_comes_back(
    rendezvous: MemoryRendezvous,
) -> None:
    first, second = rendezvous.gang("a", "b")
    before = len(rendezvous.store.leases)
    record = rendezvous.ledger.read(RUN.members, deadline=_soon()).records[1]
    with rendezvous.store.transaction() as transaction:
        transaction.delete(rendezvous.ledger.namespace, [record.key])
    for node in (
        first,
        second,
    ):  # one hears of the verdict, the other that it cannot write any more
        node.succeeds()
    assert rendezvous.again(first, second).round == 2
    assert len(rendezvous.store.leases) == before


def test_a_renewal_that_nobody_announced_is_noticed(rendezvous: MemoryRendezvous) -> None:
    def begin(ledger: FaultyLedger) -> None:
        ledger.held = time.monotonic()

    node = rendezvous.node(
        "a", min_nodes=1, max_nodes=2, lease_ttl=0.2, last_call=0.3, before=begin
    )
    assert not node.peek(0.5)  # suspended by its own clock when the last call is over
    node.ledger.held = None
    node.starts()


def test_a_store_that_cannot_be_opened_is_an_error_with_its_reason(
    rendezvous: MemoryRendezvous,
) -> None:
    def refuse() -> Port:
        raise RendezvousError("this node cannot serve")

    def break_down() -> Port:
        raise OSError("no descriptors left")

    first = rendezvous.node("a", min_nodes=1, max_nodes=1, open_store=refuse)
    _ends_with(first, RendezvousError, "cannot serve")
    second = rendezvous.node("b", min_nodes=1, max_nodes=1, open_store=break_down)
    _ends_with(second, RendezvousError, "broke down", "OSError: no descriptors left")
    assert isinstance(_error(second).__cause__, OSError)


def test_closing_ends_a_call_that_hangs(rendezvous: MemoryRendezvous) -> None:
    def begin(ledger: FaultyLedger) -> None:
        ledger.hanging = True

    node = rendezvous.node("a", min_nodes=1, max_nodes=1, lease_ttl=1000, before=begin)
    assert node.ledger.hung.wait(10)
    asked = see.EndRequested("gone", stop=False)
    assert not node.driver.leave(asked, time.monotonic() + 0.1)
    began = time.monotonic()
    assert node.driver.close(began + 10)
    assert time.monotonic() - began < 5


def test_closing_twice_does_nothing(rendezvous: MemoryRendezvous) -> None:
    (node,) = rendezvous.gang("a")
    for _ in range(2):
        assert node.driver.close(_soon())


def test_the_log_of_another_life_is_history(rendezvous: MemoryRendezvous) -> None:
    old = Assignment(
        generation=1,
        round=3,
        restarts=2,
        seats=(Seat(node="x.1", name="x", address="10.0.0.9", role="worker", nproc=1),),
        host="10.0.0.9",
        port=1,
        by="x.1",
    )
    rendezvous.write(RUN.key(old), encode(old))
    node = rendezvous.node("a", min_nodes=1, max_nodes=1)
    agreed = node.starts()
    assert (agreed.generation, agreed.round, agreed.restarts) == (1, 4, 0)


def _soon() -> float:
    return time.monotonic() + 10
