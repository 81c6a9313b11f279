"""What a run's log says of its gates.

Gates are numbered within their round, and the leader writes one only when the one before it is
decided. So the newest of each kind are enough, whatever a watch leaves out: between two decisions
for a step, a node can miss nothing but decisions that nothing is done. This module may import
nothing but the standard library and the room's records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from llutil.rendezvous.protocol.gate_records import Gate, GateDecision
from llutil.rendezvous.protocol.record_base import Stage

__all__ = ["GateHistory"]


@dataclass(frozen=True, slots=True)
class GateHistory:
    """The newest gate, the newest decision, and the newest one for a step; None if there is none.
    They may be of different rounds.
    """

    gate: Gate | None = None
    decision: GateDecision | None = None
    agreement: GateDecision | None = None

    def with_record(self, record: Gate | GateDecision) -> Self:
        """This history with ``record``, if that is newer."""
        match record:
            case Gate():
                return replace(self, gate=record) if _newer(record, self.gate) else self
            case GateDecision():
                found = self
                if _newer(record, found.decision):
                    found = replace(found, decision=record)
                if record.step is not None and _newer(record, found.agreement):
                    found = replace(found, agreement=record)
                return found

    def of(self, stage: Stage) -> Self:
        """What of it is about the round ``stage``."""
        kept = (
            one if one is not None and one.stage == stage else None
            for one in (self.gate, self.decision, self.agreement)
        )
        return type(self)(*kept)  # type: ignore[arg-type]  # each in its own place

    @property
    def open(self) -> Gate | None:
        """The gate that is not decided. Ask it of one round's history only."""
        gate, decision = self.gate, self.decision
        if gate is None or (decision is not None and decision.number >= gate.number):
            return None
        return gate


def _newer(record: Gate | GateDecision, known: Gate | GateDecision | None) -> bool:
    return known is None or (record.stage, record.number) > (known.stage, known.number)
