"""Nodes whose workers have ended while the store is away, or is full: it answers reads and
renewals, and takes nothing new.
"""

from __future__ import annotations

import logging
import time

import pytest

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.records import ReportKind
from tests.support.memory_rendezvous import RUN, MemoryRendezvous, Node

_NEVER = 1000.0
_NEVER_TOO_LATE = float("inf")


def _hush(trouble: str, *nodes: Node) -> None:
    """From now on the store is away, or full, for these nodes."""
    for node in nodes:
        setattr(node.ledger, trouble, True)
        if trouble == "away":
            node.ledger.held = time.monotonic()  # the last renewal


def _outcome(node: Node) -> do.GaveUp:
    end = node.ends(do.GaveUp)
    assert end.outcome is not None
    assert end.outcome.node == f"{node.name}.1"
    return end


@pytest.mark.parametrize("trouble", ["away", "full"])
@pytest.mark.parametrize("fatal", [False, True])
def test_a_failure_that_no_restart_can_mend_is_told_soon(
    rendezvous: MemoryRendezvous, trouble: str, fatal: bool
) -> None:
    nodes = rendezvous.gang(
        "a",
        "b",
        lease_ttl=0.2,
        timeout=_NEVER,
        report_limit=0.1,
        max_restarts=3 if fatal else 0,
    )
    _hush(trouble, *nodes)
    for node in nodes:
        node.fails("ValueError: no such digit", fatal=fatal)
    for node in nodes:
        end = _outcome(node)
        assert end.outcome is not None
        assert end.outcome.job_failure is not None
        assert end.outcome.job_failure.why == "ValueError: no such digit"
        assert "for 0.1 s; the ledger's last error: the store " in end.why


@pytest.mark.parametrize("trouble", ["away", "full"])
def test_a_failure_that_a_restart_can_mend_is_told_when_the_time_limit_is_over(
    rendezvous: MemoryRendezvous, trouble: str
) -> None:
    (node,) = rendezvous.gang("a", lease_ttl=0.2, timeout=_NEVER, report_limit=0.01)
    node.limit_wait(0.3)
    began = time.monotonic()
    _hush(trouble, node)
    node.fails("ValueError: no such digit")
    end = _outcome(node)
    assert time.monotonic() - began >= 0.3
    assert end.outcome is not None
    assert end.outcome.say is ReportKind.FAILED


@pytest.mark.parametrize("trouble", ["away", "full"])
def test_a_failure_waits_for_a_store_that_is_back_in_time(
    rendezvous: MemoryRendezvous, trouble: str
) -> None:
    (node,) = rendezvous.gang("a", lease_ttl=0.2, timeout=30.0, report_limit=0.01)
    _hush(trouble, node)
    node.fails()
    assert not node.peek(0.3)
    node.ledger.away = node.ledger.full = False
    node.ledger.held = None
    assert node.starts().restarts == 1


def test_a_node_that_was_all_of_its_round_has_succeeded_though_a_full_store_cannot_say_so(
    rendezvous: MemoryRendezvous, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = rendezvous.node("a", min_nodes=1, max_nodes=2, lease_ttl=0.2, timeout=_NEVER)
    agreed = node.starts()
    node.limit_wait(0.5)
    _hush("full", node)
    node.succeeds()
    end = node.ends(do.FinishedWell)
    assert (end.assignment, end.recorded) == (agreed, False)
    assert "took nothing that was written for 0.5 s" in end.why
    assert end.why.endswith("the ledger's last error: the store has no space left")
    said = [one.getMessage() for one in caplog.records]
    assert not any("before: was not applied before" in one for one in said)
    tries = [one for one in said if "Create: " in one and "succeeded" in one]
    assert len(tries) <= 2, tries  # it was tried a dozen times


@pytest.mark.parametrize(("most", "kind"), [(1, do.FinishedWell), (2, do.GaveUp)])
def test_a_node_whose_lease_may_be_over_has_succeeded_only_in_a_job_of_one_node(
    rendezvous: MemoryRendezvous, most: int, kind: type[do.FinishedWell | do.GaveUp]
) -> None:
    node = rendezvous.node("a", min_nodes=1, max_nodes=most, lease_ttl=0.2, timeout=_NEVER)
    node.starts()
    node.limit_wait(0.3)
    _hush("away", node)
    node.succeeds()
    node.ends(kind)


@pytest.mark.parametrize("trouble", ["away", "full"])
def test_nodes_that_cannot_hear_of_each_other_end_in_time_and_claim_no_success(
    rendezvous: MemoryRendezvous, trouble: str
) -> None:
    nodes = rendezvous.gang("a", "b", lease_ttl=0.2, timeout=_NEVER)
    _hush(trouble, *nodes)
    for node in nodes:
        node.limit_wait(0.3)
        node.succeeds()
    for node in nodes:
        end = _outcome(node)
        assert end.outcome is not None
        assert end.outcome.say is ReportKind.SUCCEEDED


def test_a_full_store_that_takes_writes_again_in_time_costs_nothing(
    rendezvous: MemoryRendezvous,
) -> None:
    nodes = rendezvous.gang("a", "b", lease_ttl=0.2, timeout=30.0)
    _hush("full", *nodes)
    for node in nodes:
        node.succeeds()
    assert not nodes[0].peek(0.3)
    for node in nodes:
        node.ledger.full = False
    for node in nodes:
        assert node.ends(do.FinishedWell).recorded


def test_a_node_that_was_all_of_its_round_need_not_run_again_though_its_lease_is_over(
    rendezvous: MemoryRendezvous,
) -> None:
    node = rendezvous.node("a", min_nodes=1, max_nodes=2)
    agreed = node.starts()
    _hush("away", node)
    node.succeeds()
    assert not node.peek(0.1)  # it has tried to report that
    (record,) = rendezvous.ledger.read(RUN.members, deadline=_NEVER_TOO_LATE).records
    rendezvous.ledger.end_lease(record.lease, deadline=_NEVER_TOO_LATE)
    node.ledger.away, node.ledger.held = False, None
    end = node.ends(do.FinishedWell)
    assert (end.assignment, end.recorded) == (agreed, True)
    assert rendezvous.keys(RUN.log) == ["log/000001.marker"]


def test_a_node_that_waits_for_others_is_not_told_to_have_failed_by_a_store_that_is_there(
    rendezvous: MemoryRendezvous,
) -> None:
    first, second = rendezvous.gang("a", "b", timeout=_NEVER)
    first.fails()
    assert second.peek(10.0)
    assert second.next_stops()
    second.dies()  # before it has stopped its workers, or there would be another round
    first.limit_wait(0.3)
    end = first.ends(do.GaveUp)
    assert end.outcome is None
    assert "1 of 2 nodes are ready" in end.why
