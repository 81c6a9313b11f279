"""What a node's driver tells the machine: answers of the ledger, what watches show, and what the
node's agent says.

A request (an instruction with a ``ticket``) is answered by exactly one observation with the same
ticket: its own kind of answer, or ``Unanswered``. A watch shows the present state, perhaps late,
but never an older state after a newer one. The first view of a watch, and the result of a read, is
no older than the instruction that asked for it. When a lease is lost, the driver closes the watches
of that identity, except the log's, before it goes on. This module may import nothing but the
standard library and the room's values. What concerns gates is in ``gate_messages``, whose names are
here too.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.gate_messages import (
    AnswersSeen,
    CheckpointSaved,
    GateRaised,
    WishMade,
)
from llutil.rendezvous.protocol.gate_records import Wish
from llutil.rendezvous.protocol.records import Member, Record, Report, Stage
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = [
    "AgentObservation",
    "Answer",
    "AnswersSeen",
    "CheckpointSaved",
    "Created",
    "EndRequested",
    "Existed",
    "Found",
    "GateRaised",
    "Joined",
    "LeaseLost",
    "LeaseRenewed",
    "LeaseTaken",
    "LedgerGone",
    "LogRead",
    "LogSeen",
    "MembersSeen",
    "Observation",
    "OwnRecordGone",
    "PredecessorGone",
    "ReportsRead",
    "ReportsSeen",
    "StoreOpened",
    "Ticked",
    "Unanswered",
    "WishMade",
    "WorkersEnded",
    "WorkersStopped",
]


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed, or the driver has just begun."""


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """The node has a lease. ``sent``: when the request was sent, by the node's own clock.
    ``new_store``: it is in another store than the last one, which has no records of that.
    """

    ticket: int
    sent: float
    new_store: bool = False


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The lease was renewed. ``sent``: when the renewal that succeeded was sent, by the node's own
    clock.
    """

    sent: float


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The ledger says that the lease of the identity ``node`` is over."""

    node: str


@dataclass(frozen=True, slots=True)
class LedgerGone:
    """The ledger has gone for good: no request will be answered any more. ``why`` says how that is
    known.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The own member record is written. ``before``: the ledger's names of the older member records,
    oldest first.

    ``log`` was read in the same transaction or later. The log is watched from now on.
    """

    ticket: int
    before: tuple[str, ...]
    log: RunHistory


@dataclass(frozen=True, slots=True)
class LogSeen:
    """The watch of the log shows this."""

    log: RunHistory


@dataclass(frozen=True, slots=True)
class LogRead:
    """What a read of the log, sent after the request, has found."""

    ticket: int
    log: RunHistory


@dataclass(frozen=True, slots=True)
class MembersSeen:
    """The watch of the members shows these, in order of arrival."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class ReportsSeen:
    """The watch of one round's reports shows these."""

    stage: Stage
    reports: tuple[Report | Wish, ...]


@dataclass(frozen=True, slots=True)
class ReportsRead:
    """What a read of one round's reports, sent after the request, has found."""

    ticket: int
    stage: Stage
    reports: tuple[Report | Wish, ...]


@dataclass(frozen=True, slots=True)
class PredecessorGone:
    """The member record of that name (one of ``Joined.before``) does not exist any more."""

    name: str


@dataclass(frozen=True, slots=True)
class Created:
    """This request has written the records."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Existed:
    """Nothing was written, since one of the keys exists. ``record`` is what it holds; an earlier
    request of this node may have written it.
    """

    ticket: int
    record: Record


@dataclass(frozen=True, slots=True)
class OwnRecordGone:
    """Nothing was written: the own member record does not exist any more. The lease is lost."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Found:
    """What the first key of an unanswered write holds now; None if it does not exist."""

    ticket: int
    record: Record | None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The ledger did not answer in time. It may have applied a write, or may still apply it."""

    ticket: int


@dataclass(frozen=True, slots=True)
class StoreOpened:
    """The TCPStore of the round ``stage`` is bound to this address and port."""

    stage: Stage
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class WorkersEnded:
    """No worker of this node in the round ``stage`` is left: all succeeded, or one has failed.

    ``job_failure`` is what went wrong; None if they succeeded.
    """

    stage: Stage
    job_failure: JobFailure | None


@dataclass(frozen=True, slots=True)
class WorkersStopped:
    """No worker of the round ``stage`` is left, after ``StopWorkers``."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class EndRequested:
    """This node was asked to stop the whole job (``stop``), or else to leave it to the others.

    ``linger``: how many seconds a node that leaves stays for the sake of the others, once it has no
    workers: until its report is in the ledger, and, as the leader, until the round is over, since
    it hosts the round's store. Infinite: as long as the round runs. It can be requested again, with
    another ``linger``.
    """

    why: str
    stop: bool
    linger: float = 0.0


Answer = (
    LeaseTaken
    | Joined
    | LogRead
    | ReportsRead
    | Created
    | Existed
    | OwnRecordGone
    | Found
    | Unanswered
)

AgentObservation = (
    WorkersEnded | WorkersStopped | EndRequested | WishMade | GateRaised | CheckpointSaved
)
"""What the agent tells."""

Observation = (
    Answer
    | AgentObservation
    | Ticked
    | LeaseRenewed
    | LeaseLost
    | LedgerGone
    | LogSeen
    | MembersSeen
    | ReportsSeen
    | PredecessorGone
    | StoreOpened
    | AnswersSeen
)
