"""Nodes whose ledger goes for good: who has no workers ends at once, and workers run on."""

from __future__ import annotations

import logging

import pytest

from llutil.ledgers.memory_store import MemoryStore
from llutil.rendezvous.driver.instruction_executor import InstructionExecutor
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.records import Cause
from tests.support.memory_rendezvous import RUN, FaultyLedger, MemoryRendezvous, Port
from tests.support.rendezvous_values import marker, member, rules

_NEVER = 1000.0
_WHY = "nobody serves the ledger at 10.0.0.1:29410 any more"


def _ends_since_it_is_gone(end: do.GaveUp) -> bool:
    told = f"the ledger has gone for good: {_WHY}"
    return (end.why, end.ledger_away, end.gone) == (told, True, True)


def test_a_node_that_waits_for_others_ends_once_its_session_says_that_the_ledger_is_gone(
    rendezvous: MemoryRendezvous,
) -> None:
    node = rendezvous.node("a", min_nodes=2, max_nodes=2, timeout=_NEVER)
    assert not node.peek(0.1)
    node.ledger.go(_WHY)
    assert _ends_since_it_is_gone(node.ends(do.GaveUp))


def test_a_node_that_never_had_an_answer_ends_once_a_call_says_so(
    rendezvous: MemoryRendezvous,
) -> None:
    def go(ledger: FaultyLedger) -> None:
        ledger.go(_WHY)

    node = rendezvous.node("a", min_nodes=2, max_nodes=2, timeout=_NEVER, before=go)
    assert _ends_since_it_is_gone(node.ends(do.GaveUp))


def test_workers_run_on_and_how_they_end_is_told(rendezvous: MemoryRendezvous) -> None:
    nodes = rendezvous.gang("a", "b", timeout=_NEVER, lease_ttl=0.2)
    for node in nodes:
        node.ledger.go(_WHY)
    assert not any(node.peek(0.3) for node in nodes), "longer than a lease"
    first, second = nodes
    first.succeeds()
    second.fails()
    for node in nodes:
        end = node.ends(do.GaveUp)
        assert _ends_since_it_is_gone(end)
        assert end.outcome is not None
        assert end.outcome.node == f"{node.name}.1"


def test_the_machine_is_told_once_and_the_log_names_no_request_after_that(
    rendezvous: MemoryRendezvous,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[see.LedgerGone] = []
    real = Machine.step

    def step(machine: Machine, observation: see.Observation, now: float) -> object:
        if isinstance(observation, see.LedgerGone):
            caplog.clear()
            told.append(observation)
        return real(machine, observation, now)

    monkeypatch.setattr(Machine, "step", step)
    (node,) = rendezvous.gang("a", max_nodes=2, timeout=_NEVER, lease_ttl=0.2, retry_pause=0.02)
    node.ledger.go(_WHY)
    assert not node.peek(0.3)
    node.succeeds()
    node.ends(do.GaveUp)
    assert told == [see.LedgerGone(_WHY)]
    said = [one.getMessage() for one in caplog.records if "llutil.rendezvous" in one.name]
    assert [line.split(": ")[1] for line in said] == ["CloseStore", "Finish"]


def test_what_the_ledger_showed_before_it_went_is_seen_first() -> None:
    ledger = FaultyLedger(MemoryStore(), lambda: None)
    executor = InstructionExecutor(
        rules(),
        RUN,
        ledger,
        open_store=Port,
        give=lambda _: None,
        wake=lambda: None,
        note_revocation=lambda _: None,
    )
    executor.carry_out(do.TakeLease(1, "test"), "")
    executor.carry_out(do.Join(2, member("a"), "test"), "a.1")
    executor.new_observations("a.1")
    executor.carry_out(do.Create(3, (marker(Cause.SUCCEEDED),), "test"), "a.1")
    ledger.go(_WHY)
    seen = executor.new_observations("a.1")
    assert [type(one) for one in seen] == [see.LogSeen, see.LedgerGone]
    ledger.close()
