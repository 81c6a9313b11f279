"""What is said of a ledger that does not answer."""

from __future__ import annotations

from llutil.ledgers.memory_store import MemoryStore
from llutil.rendezvous.driver.instruction_executor import InstructionExecutor
from llutil.rendezvous.protocol import instructions as do
from tests.support.memory_rendezvous import RUN, FaultyLedger, Port
from tests.support.rendezvous_values import rules


def test_the_last_error_is_the_newest_one() -> None:
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
    ledger.away = ledger.full = True
    executor.carry_out(do.ReadLog(1, "test"), "a.1")
    assert executor.last_error == "the store is away"
    executor.carry_out(do.TakeLease(2, "test"), "a.1")
    assert executor.last_error == "the store has no space left"
    executor.carry_out(do.ReadLog(3, "test"), "a.1")
    assert executor.last_error == "the store is away"
    ledger.close()
