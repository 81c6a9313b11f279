"""What a node's driver tells the machine: answers to what it asked, what watches show, what its
agent says.

A request (an instruction with a ``ticket``) is answered by exactly one observation with the same
ticket: its own kind of answer, or ``Unanswered``. Watches show the present state, late perhaps, but
never backwards; what the first look of a watch or a read shows is no older than the instruction
that asked for it. When a lease is lost, the driver closes the watches of that identity (but for the
log's) before it goes on. This module may import nothing but the standard library and the room's
values.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.records import Member, Record, Report, Stage
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = [
    "Answer",
    "Asked",
    "Created",
    "Existed",
    "Found",
    "Joined",
    "LeaseLost",
    "LeaseRenewed",
    "LeaseTaken",
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
    "WorkersEnded",
    "WorkersStopped",
]


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed, or the driver has just begun."""


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """The node has a lease. ``sent``: when it was asked for, by the node's own clock."""

    ticket: int
    sent: float


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
class Joined:
    """The own member record is there. ``before``: the ledger's names of the older ones, oldest
    first.

    ``log`` was read with, or after, the writing of the record; the log is watched from now on.
    """

    ticket: int
    before: tuple[str, ...]
    log: RunHistory


@dataclass(frozen=True, slots=True)
class LogSeen:
    """The log's watch shows this."""

    log: RunHistory


@dataclass(frozen=True, slots=True)
class LogRead:
    """What the log holds, read after it was asked for."""

    ticket: int
    log: RunHistory


@dataclass(frozen=True, slots=True)
class MembersSeen:
    """The members' watch shows these, in order of arrival."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class ReportsSeen:
    """The watch of one round's reports shows these."""

    stage: Stage
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class ReportsRead:
    """One round's reports, read after they were asked for."""

    ticket: int
    stage: Stage
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class PredecessorGone:
    """The member record of that name (one of ``Joined.before``) is not there any more."""

    name: str


@dataclass(frozen=True, slots=True)
class Created:
    """The records were written, by this request."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Existed:
    """Nothing was written: the first key that exists holds this record, perhaps by an earlier
    request.
    """

    ticket: int
    record: Record


@dataclass(frozen=True, slots=True)
class OwnRecordGone:
    """Nothing was written: the own member record is not there any more. The lease is lost."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Found:
    """What the key of an unanswered write's first record holds now; None if nothing."""

    ticket: int
    record: Record | None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The ledger did not answer in time. A write may have been applied, or be applied yet."""

    ticket: int


@dataclass(frozen=True, slots=True)
class StoreOpened:
    """The TCPStore for the round ``stage`` is bound, at this address and port."""

    stage: Stage
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class WorkersEnded:
    """All workers of this node in the round ``stage`` succeeded, or one of them failed and none is
    left.

    ``job_failure`` is what went wrong; None if they succeeded.
    """

    stage: Stage
    job_failure: JobFailure | None


@dataclass(frozen=True, slots=True)
class WorkersStopped:
    """No worker of the round ``stage`` is left, after ``StopWorkers``."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Asked:
    """This node was asked to stop the whole job (``stop``), or else to leave it to the others.

    ``linger``: seconds that a leaving leader waits for the others to leave too, so that it can
    write the generation's marker as the last. For agents that never report, and so cannot end a job
    in any other way.
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

Observation = (
    Answer
    | Ticked
    | LeaseRenewed
    | LeaseLost
    | LogSeen
    | MembersSeen
    | ReportsSeen
    | PredecessorGone
    | StoreOpened
    | WorkersEnded
    | WorkersStopped
    | Asked
)
