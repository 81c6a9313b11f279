"""What the machine tells a node's driver to do. Each instruction has a reason (``why``). How a
node's part can end is in ``ends``, what concerns gates is in ``gate_messages``; their names are
here too.

Instructions with a ``ticket`` are requests. Each is answered by one observation with that ticket,
and the machine sends no second request before the answer. The others are carried out in order and
need no answer, except where their docstring names one. A docstring ends with the observations that
answer. This module may import nothing but the standard library and the room's records.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.rendezvous.protocol.ends import (
    End,
    Failed,
    FinishedWell,
    GaveUp,
    Late,
    Left,
    Refused,
    Stopped,
)
from llutil.rendezvous.protocol.gate_messages import (
    DeleteGates,
    OpenGate,
    RaiseGate,
    RefuseWish,
    WatchAnswers,
)
from llutil.rendezvous.protocol.records import Assignment, Cause, Member, Record, Stage

__all__ = [
    "CloseStore",
    "Create",
    "DeleteGates",
    "DeleteStale",
    "End",
    "Failed",
    "Finish",
    "FinishedWell",
    "GaveUp",
    "Instruction",
    "Join",
    "Late",
    "Leave",
    "Left",
    "OpenGate",
    "OpenStore",
    "RaiseGate",
    "ReadBack",
    "ReadLog",
    "ReadReports",
    "RefuseWish",
    "Refused",
    "RenewGeneration",
    "Request",
    "StartWorkers",
    "StopWorkers",
    "Stopped",
    "TakeLease",
    "Wait",
    "WatchAnswers",
    "WatchMembers",
    "WatchPredecessor",
    "WatchReports",
]


@dataclass(frozen=True, slots=True)
class TakeLease:
    """Take a new lease, renew it from then on, and drop any older one; ``LeaseTaken``."""

    ticket: int
    why: str


@dataclass(frozen=True, slots=True)
class Join:
    """Write the own member record under the lease, and watch the log from then on; ``Joined`` or
    ``LeaseLost``.
    """

    ticket: int
    member: Member
    why: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read the log now; ``LogRead``."""

    ticket: int
    why: str


@dataclass(frozen=True, slots=True)
class ReadReports:
    """Read the reports on one round now; ``ReportsRead``. ``nodes``: the lost or new nodes that it
    is done for.
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
    """Read the key of ``record``, since the write of it got no answer; ``Found``."""

    ticket: int
    record: Record
    why: str


Request = TakeLease | Join | ReadLog | ReadReports | Create | ReadBack


@dataclass(frozen=True, slots=True)
class WatchPredecessor:
    """Watch the member record of that name instead of any other; ``PredecessorGone`` once it does
    not exist.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class WatchMembers:
    """Watch all member records; ``MembersSeen`` at once and on each change."""

    why: str


@dataclass(frozen=True, slots=True)
class WatchReports:
    """Watch the reports on that round instead of any other; ``ReportsSeen`` at once and on each
    change.
    """

    stage: Stage
    why: str


@dataclass(frozen=True, slots=True)
class RenewGeneration:
    """Renew the lease of that generation's records from now on, for as long as this node lives."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class DeleteStale:
    """Delete what is stale before that stage (``RecordKeys.stale``). It may fail: what stays
    expires with its lease.
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
    """Start the workers of this node; ``WorkersEnded`` once none is left."""

    assignment: Assignment
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class StopWorkers:
    """End the workers of this node in that round; ``WorkersStopped`` once none is left.
    ``round_failed``: a member failed or was lost; else the stop is an orderly one. ``cause`` is
    that of the round's verdict, or of the node's own end; None if neither says it.
    """

    stage: Stage
    why: str
    round_failed: bool
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """Delete the own member record and end the lease, so that the others need not wait until it
    expires. It may fail.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done before the next observation; at ``until`` on the own clock, that is
    ``Ticked``.

    ``until`` is infinite only while workers run, here or on other members of a round: nobody knows
    how long they take.
    """

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Finish:
    """This node's part is over. Only a ``Wait`` follows."""

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
    | RenewGeneration
    | DeleteStale
    | OpenStore
    | CloseStore
    | StartWorkers
    | StopWorkers
    | RaiseGate
    | OpenGate
    | RefuseWish
    | WatchAnswers
    | DeleteGates
    | Leave
    | Finish
    | Wait
)
