"""What a run's log says: its newest assignment, verdict, marker and gates, and what follows from
them.

The log is the folder ``log`` of the run's keys. Records never change and stages only grow. So two
views of the log, in whichever order they were seen, merge into one: the newest record of each kind
counts. This module may import nothing but the standard library and the room's records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from llutil.rendezvous.protocol.gate_history import GateHistory
from llutil.rendezvous.protocol.gate_records import Gate, GateDecision
from llutil.rendezvous.protocol.records import Assignment, Marker, Record, Stage, Verdict

__all__ = ["RunHistory"]


@dataclass(frozen=True, slots=True)
class RunHistory:
    """The newest record of each kind in the log; None if there is none."""

    assignment: Assignment | None = None
    verdict: Verdict | None = None
    marker: Marker | None = None
    gates: GateHistory = GateHistory()  # noqa: RUF009 - it cannot change

    closed: int = field(init=False, compare=False, repr=False)
    """The newest generation that is over; 0 if none is."""
    generation: int = field(init=False, compare=False, repr=False)
    """The open generation, or the one that the next seal will open."""
    last: Assignment | None = field(init=False, compare=False, repr=False)
    """The newest round of the open generation; None if no generation is open."""
    stage: Stage = field(init=False, compare=False, repr=False)
    """The stage of ``last``; round 0 of the next generation if there is none."""
    running: Assignment | None = field(init=False, compare=False, repr=False)
    """The round that runs: it is sealed and has no verdict. None if no round runs."""
    busy: frozenset[str] = field(init=False, compare=False, repr=False)
    """Nodes that may still have workers of an earlier round. Each is ready only after it has
    reported ``BACK``.
    """

    def __post_init__(self) -> None:
        assignment, verdict, marker = self.assignment, self.verdict, self.marker
        # A final verdict closes its generation too: a watch may show it before the marker, though
        # one transaction wrote both.
        final = verdict.generation if verdict and verdict.final else 0
        closed = max(marker.generation if marker else 0, final)
        last = assignment if assignment and assignment.generation > closed else None
        over = last and verdict and verdict.stage >= last.stage
        object.__setattr__(self, "closed", closed)
        object.__setattr__(self, "generation", last.generation if last else closed + 1)
        object.__setattr__(self, "last", last)
        object.__setattr__(self, "stage", last.stage if last else Stage(closed + 1, 0))
        object.__setattr__(self, "running", None if over else last)
        busy = assignment.node_set.union(assignment.away) if assignment else frozenset[str]()
        if marker and not last:
            busy = busy.union(marker.nodes)
        object.__setattr__(self, "busy", busy)

    def with_records(self, records: Iterable[Record]) -> Self:
        """This log with those of ``records`` that belong into a log and are newer."""
        assignment, verdict, marker = self.assignment, self.verdict, self.marker
        gates = self.gates
        for record in records:
            match record:
                case Assignment() if assignment is None or record.stage > assignment.stage:
                    assignment = record
                case Verdict() if verdict is None or record.stage > verdict.stage:
                    verdict = record
                case Marker() if marker is None or record.generation > marker.generation:
                    marker = record
                case Gate() | GateDecision():
                    gates = gates.with_record(record)
                case _:
                    pass
        known = (self.assignment, self.verdict, self.marker, self.gates)
        if (assignment, verdict, marker, gates) == known:
            return self
        return type(self)(assignment, verdict, marker, gates)

    def merged(self, other: RunHistory) -> Self:
        """The newest records of both."""
        if other is self:
            return self
        gates = other.gates
        newest = (other.assignment, other.verdict, other.marker)
        of_gates = (gates.gate, gates.decision, gates.agreement)
        return self.with_records(record for record in (*newest, *of_gates) if record)

    def verdict_on(self, stage: Stage) -> Verdict | None:
        """The verdict on ``stage``, if it is the newest one."""
        return self.verdict if self.verdict and self.verdict.stage == stage else None

    def is_over(self, stage: Stage) -> bool:
        """Whether the round ``stage`` has ended: by its verdict, by a later round, or with its
        generation.
        """
        return (
            (self.verdict is not None and self.verdict.stage >= stage)
            or (self.assignment is not None and self.assignment.stage > stage)
            or self.closed >= stage.generation
        )
