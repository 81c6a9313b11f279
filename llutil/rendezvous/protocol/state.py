"""One node's view of the protocol: all that its next step depends on, besides the time.

The fields are changed by ``absorbing`` (what was observed) and by ``machine`` (what was
instructed), and read by the decisions. This module may import nothing but the standard library,
msgspec and the room's values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from msgspec import structs

from llutil.rendezvous.protocol.instructions import Create, End, Request
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Assignment, Member, Report, ReportKind, Stage
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = ["State", "WorkersState"]


class WorkersState(Enum):
    """What this node's workers do."""

    NONE = "there are none"
    RUNNING = "they run"
    STOPPING = "they were told to stop"
    ENDED = "they ended by themselves, and their round has not"


@dataclass(slots=True, kw_only=True)
class State:
    """All times are of the node's own clock, in seconds.

    ``profile`` is the member record without an identity. An identity (``node``) lasts as long as
    its lease.
    """

    rules: ProtocolParameters
    profile: Member

    # The lease, and the identity that it proves to live.
    identities: int = 0
    node: str = ""
    leased: bool = False
    renewed: float = 0.0
    joined: bool = False
    before: tuple[str, ...] = ()
    """The ledger's names of older members that may still be there. Whoever has none before it
    leads.
    """
    watched: str | None = None

    # What the run has come to, and this node's part in it.
    log: RunHistory = field(default_factory=RunHistory)
    met: int | None = None
    """Generations up to this one ended before this node came, and mean nothing to it. None: not yet
    known.
    """
    stage: Stage = Stage(1, 0)  # noqa: RUF009 - a named tuple cannot change
    """``log.stage``, when it was last looked at: what is known of reports belongs to it."""
    ended_since: float | None = None
    """Since when no round has been running; None while one does."""
    seat: Assignment | None = None
    """The round that this node is in, from ``StartWorkers`` until its workers are gone and the
    round is over.
    """
    work: WorkersState = WorkersState.NONE
    outcome: Report | None = None
    said: set[tuple[Stage, ReportKind]] = field(default_factory=set)
    """What the identity ``node`` has reported, as the ledger confirmed."""
    succeeded: Assignment | None = None
    """The newest round in which this node's own workers all succeeded, under whichever identity."""

    # One request at a time.
    ticket: int = 0
    asked: Request | None = None
    doubt: Create | None = None
    """A write that was not answered. It may be applied yet, at any time, so it is read back and
    repeated as it is, whatever has changed meanwhile, until the ledger says what became of it;
    nothing else is written before. A leader that reconsidered could find its earlier decision
    applied after all, once the later one was swept."""
    absent: bool = False
    """The write in doubt was looked for, and had not been applied."""
    retry: float = 0.0

    # Leading.
    fresh: bool = False
    """The log was read since this node leads; from then on nobody else writes into it."""
    kept: int = 0
    members: tuple[Member, ...] | None = None
    watching_members: bool = False
    watching_reports: Stage | None = None
    ends: dict[str, Report] = field(default_factory=dict)
    """Reports of success or failure on ``log.stage``, by node."""
    backs: set[str] = field(default_factory=set)
    """Nodes that are ready for the round after ``log.stage``."""
    stops: dict[str, Report] = field(default_factory=dict)
    """Requests to stop the whole job, by node."""
    checked: frozenset[str] = frozenset()
    checking: frozenset[str] = frozenset()
    quorum_since: float | None = None
    failed_since: float | None = None
    store: tuple[Stage, str, int] | None = None
    store_asked: Stage | None = None
    sweep: Stage | None = None
    marked: int = 0
    """The newest generation that this node wrote the marker of."""

    # Ends.
    waiting_since: float | None = None
    waited: float = 0.0
    wish: End | None = None
    """What this node was asked to come to: ``Stopped``, ``Left``, or ``GaveUp``."""
    linger: float = 0.0
    wish_since: float | None = None
    """Since when the wish is all that is left to do here: no workers run."""
    ending: End | None = None
    left: bool = False
    finished: bool = False

    @property
    def member(self) -> Member:
        """The member record of the present identity."""
        return structs.replace(self.profile, node=self.node)

    @property
    def leads(self) -> bool:
        """Whether no older member is left: this node may write into the log, until its own record
        goes.
        """
        return self.joined and not self.before

    @property
    def idle(self) -> bool:
        """Whether no workers run here."""
        return self.work is WorkersState.NONE or self.work is WorkersState.ENDED

    @property
    def patience(self) -> float:
        """How long this node waits for a round in all, in seconds."""
        rules = self.rules
        return rules.timeout if self.identities else min(rules.timeout, rules.first_answer)

    def suspended(self, now: float) -> bool:
        """Whether the lease may be over, by this node's own clock (rule 6)."""
        return self.leased and now >= self.renewed + self.rules.lease_ttl
