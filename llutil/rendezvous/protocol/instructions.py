"""What the machine tells a node's driver to do, and how a node's part can end. Every one says why.

Instructions with a ``ticket`` are requests: each is answered by one observation with that ticket,
and the machine makes no second one before. The others are carried out in order and need no answer,
except where their text says so. This module may import nothing but the standard library and the
room's records.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.records import Assignment, Member, Record, Stage

__all__ = [
    "CloseStore",
    "Create",
    "End",
    "Failed",
    "Finish",
    "FinishedWell",
    "GaveUp",
    "Instruction",
    "Join",
    "KeepGeneration",
    "Late",
    "Leave",
    "Left",
    "OpenStore",
    "ReadBack",
    "ReadLog",
    "ReadReports",
    "Refused",
    "Request",
    "StartWorkers",
    "StopWorkers",
    "Stopped",
    "Sweep",
    "TakeLease",
    "Wait",
    "WatchMembers",
    "WatchPredecessor",
    "WatchReports",
]


@dataclass(frozen=True, slots=True)
class TakeLease:
    """Take a new lease, keep it alive, and forget any older one; ``LeaseTaken``."""

    ticket: int
    why: str


@dataclass(frozen=True, slots=True)
class Join:
    """Put the own member record, leased, and watch the log from then on; ``Joined`` or
    ``LeaseLost``.
    """

    ticket: int
    member: Member
    why: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read the log anew; ``LogRead``."""

    ticket: int
    why: str


@dataclass(frozen=True, slots=True)
class ReadReports:
    """Read the reports on one round anew; ``ReportsRead``. ``nodes``: who was seen to be lost or
    new.
    """

    ticket: int
    stage: Stage
    nodes: frozenset[str]
    why: str


@dataclass(frozen=True, slots=True)
class Create:
    """Write all of ``records``, or none if one of their keys exists or the own member record is
    gone.

    In one transaction, on the generation's lease. ``Created``, ``Existed``, or ``OwnRecordGone``.
    """

    ticket: int
    records: tuple[Record, ...]
    why: str


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Read the key of ``record``, whose writing was not answered; ``Found``."""

    ticket: int
    record: Record
    why: str


Request = TakeLease | Join | ReadLog | ReadReports | Create | ReadBack


@dataclass(frozen=True, slots=True)
class WatchPredecessor:
    """Watch the member record of that name, and no other any more; ``PredecessorGone``, at once if
    it is.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class WatchMembers:
    """Watch all member records; ``MembersSeen``, at once and on each change."""

    why: str


@dataclass(frozen=True, slots=True)
class WatchReports:
    """Watch the reports on one round, and no other any more; ``ReportsSeen``, at once and on each
    change.
    """

    stage: Stage
    why: str


@dataclass(frozen=True, slots=True)
class KeepGeneration:
    """Renew the lease of that generation's records from now on, for as long as this node lives."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """Delete what is stale before that stage (``Layout.stale``). Best effort: what stays
    expires.
    """

    before: Stage
    why: str


@dataclass(frozen=True, slots=True)
class OpenStore:
    """Host a TCPStore for that round, on a port that the kernel chooses; ``StoreOpened``."""

    stage: Stage
    why: str


@dataclass(frozen=True, slots=True)
class CloseStore:
    """Close the TCPStore of that round."""

    stage: Stage
    why: str


@dataclass(frozen=True, slots=True)
class StartWorkers:
    """Start the workers of this node; ``WorkersEnded`` when they have."""

    assignment: Assignment
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class StopWorkers:
    """End the workers of this node in that round; ``WorkersStopped`` when none is left."""

    stage: Stage
    why: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Delete the own member record and end the lease, so that the others need not wait for it. Best
    effort.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before an observation comes, or the own clock reaches ``until`` (then
    ``Ticked``).

    ``until`` is infinite only while workers run, here or at the other members of a round, since how
    long they take is theirs to say.
    """

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class FinishedWell:
    """All ranks of the job succeeded, this node's among them, in this round."""

    assignment: Assignment
    why: str


@dataclass(frozen=True, slots=True)
class Late:
    """The job succeeded without this node: its result is empty."""

    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The job failed for good, by this."""

    job_failure: JobFailure

    @property
    def why(self) -> str:
        """The failure's own reason."""
        return self.job_failure.why


@dataclass(frozen=True, slots=True)
class Stopped:
    """The job was asked to stop."""

    why: str


@dataclass(frozen=True, slots=True)
class Left:
    """This node was asked to leave, and did."""

    why: str


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No round began in time, or the ledger did not answer for that long. Trying again can help."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The nodes' configurations do not fit together. Trying again cannot help."""

    why: str


End = FinishedWell | Late | Failed | Stopped | Left | GaveUp | Refused


@dataclass(frozen=True, slots=True)
class Finish:
    """This node's part is over. The last instruction but for a ``Wait``."""

    end: End

    @property
    def why(self) -> str:
        """The end's own reason."""
        return self.end.why


Instruction = (
    Request
    | WatchPredecessor
    | WatchMembers
    | WatchReports
    | KeepGeneration
    | Sweep
    | OpenStore
    | CloseStore
    | StartWorkers
    | StopWorkers
    | Leave
    | Finish
    | Wait
)
