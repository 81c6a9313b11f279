"""The agreement of a job whose nodes meet through a ledger: the rendezvous driver carries it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from llutil.agent.steering.agreement import Gates
from llutil.rendezvous.driver.driver import Driver
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.record_base import Stage

__all__ = ["LedgerAgreement"]


class LedgerAgreement:
    """Tells the driver this node's wishes, and what the driver says of gates to ``gates``."""

    def __init__(self, driver: Driver, gates: Gates) -> None:
        self._driver, self._gates = driver, gates
        self._stage = Stage(0, 0)

    def wish(self, kinds: AbstractSet[WishKind], why: str, *, preempted: bool = False) -> None:
        """Make it known to the leader of the round."""
        self._driver.tell(see.WishMade(frozenset(kinds), why, preempted))

    def checkpoint_over(self, number: int, *, saved: bool) -> None:
        """Tell the leader's machine, which may wait for it."""
        failure = "" if saved else "not every rank of this node saved"
        self._driver.tell(see.CheckpointSaved(self._stage, number, failure))

    def carry_out(self, instruction: do.RaiseGate | do.OpenGate | do.RefuseWish) -> None:
        """Do what the driver says about gates."""
        match instruction:
            case do.RaiseGate(gate=gate):
                self._stage = gate.stage
                kinds = frozenset(gate.kinds)
                limit = self._driver.parameters.gate_limit
                furthest, refusal = self._gates.raise_gate(gate.number, kinds, limit)
                self._driver.tell(see.GateRaised(gate.stage, gate.number, furthest, refusal))
            case do.OpenGate() as opened:
                limit = self._driver.parameters.saved_limit
                self._gates.open_gate(
                    opened.number,
                    frozenset(opened.kinds),
                    opened.step,
                    opened.resumed,
                    opened.why,
                    debugged=opened.debugged,
                    ends_within=limit if opened.preempted else None,
                    stacks=opened.stacks,
                )
            case do.RefuseWish(wish=wish, why=why):
                self._gates.refuse(frozenset(wish.kinds), why)
