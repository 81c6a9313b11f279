"""One node's view of the protocol: all that its next step depends on, besides the time.

``apply_observation``, ``apply_gates``, ``derive_state`` and ``growth_steps`` change the fields
after an observation, ``machine`` changes them with an instruction. The decisions only read them.
This module may import nothing but the standard library, msgspec and the room's values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from msgspec import structs

from llutil.rendezvous.protocol.gate_part import GatePart
from llutil.rendezvous.protocol.growth_part import GrowthPart
from llutil.rendezvous.protocol.instructions import Create, End, Request
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.presence import Presence
from llutil.rendezvous.protocol.records import Assignment, Member, Report, ReportKind, Stage
from llutil.rendezvous.protocol.round_reports import RoundReports
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = ["State", "WorkersState"]


class WorkersState(Enum):
    """What this node's workers are doing."""

    NONE = "there are none"
    RUNNING = "they run"
    STOPPING = "they were told to stop"
    ENDED = "they have ended, and their round has not"


@dataclass(slots=True, kw_only=True)
class State:
    """All times are of the node's own clock, in seconds.

    ``profile`` is the member record without an identity. An identity (``node``) is valid as long as
    its lease lives; after that the node takes a new lease and a new identity.
    """

    parameters: ProtocolParameters
    profile: Member

    # The lease, and the identity that lives as long as the lease.
    identities: int = 0
    node: str = ""
    leased: bool = False
    renewed: float = 0.0
    joined: bool = False
    older_members: tuple[str, ...] = ()
    """The ledger's names of the older member records that may still exist. A node without any
    leads.
    """
    watched_predecessor: str | None = None

    # What the run has come to, and this node's part in it.
    log: RunHistory = field(default_factory=RunHistory)
    ignored_generation: int | None = None
    """This node ignores the generations up to this number: they ended before it came, or were not
    its own. None before the first look at the log.
    """
    stage: Stage = Stage(1, 0)  # noqa: RUF009 - a named tuple cannot change
    """``log.stage`` as of the last step. The reports in this state are about that round."""
    ended_since: float | None = None
    """Since when no round has been running; None while one does."""
    own_round: Assignment | None = None
    """The round that this node takes part in: from ``StartWorkers`` until the round is over and
    none of this node's workers is left.
    """
    workers: WorkersState = WorkersState.NONE
    outcome: Report | None = None
    reported: set[tuple[Stage, ReportKind]] = field(default_factory=set)
    """The reports of the identity ``node`` that the ledger has confirmed."""
    succeeded: Assignment | None = None
    """The newest round in which this node's own workers all succeeded, under whichever identity."""

    gates: GatePart = field(default_factory=GatePart)
    """What this node knows of the gates of its round, beside the log."""

    # At most one request to the ledger is under way.
    ticket: int = 0
    pending: Request | None = None
    unanswered_write: Create | None = None
    """A write that got no answer. The ledger may still apply it at any time. So it is read back and
    repeated unchanged until the ledger says what became of it, and nothing else is written before.
    If the leader wrote another decision instead, the ledger could still apply the first one after
    the second one's records were deleted."""
    write_not_found: bool = False
    """``unanswered_write`` was read back, and the ledger had not applied it."""
    retry_at: float = 0.0

    # What only the leader uses.
    log_read_as_leader: bool = False
    """The log was read after this node began to lead. From then on nobody else writes into it."""
    renewed_generation: int = 0
    members: tuple[Member, ...] | None = None
    presence: Presence = field(default_factory=Presence)
    """What follows from ``members``."""
    watching_members: bool = False
    watching_reports: Stage | None = None
    reports: RoundReports = field(default_factory=RoundReports)
    """The reports on ``log.stage``."""
    checked_nodes: frozenset[str] = frozenset()
    nodes_being_checked: frozenset[str] = frozenset()
    quorum_since: float | None = None
    failed_since: float | None = None
    growth: GrowthPart = field(default_factory=GrowthPart)
    """What this node knows of the growth of the round that it leads."""
    bound_store: tuple[Stage, str, int] | None = None
    store_stage: Stage | None = None
    stale_before: Stage | None = None
    marked_generation: int = 0
    """The newest generation that this node wrote the marker of."""

    # How this node's part ends.
    ledger_gone: str = ""
    """Why the ledger has gone for good; empty while it may come back."""
    unheard_since: float | None = None
    """Since when the ledger has not taken this node's word (``unheard``); None if it does."""
    waiting_since: float | None = None
    waited: float = 0.0
    wanted_end: End | None = None
    """The end that this node was asked for (``Stopped`` or ``Left``), or that its own time limit
    asks for (``GaveUp``).
    """
    linger: float = 0.0
    wanted_end_since: float | None = None
    """Since when ``wanted_end`` is all that is left to do: no workers run here, and this node does
    not stay for its round.
    """
    decided_end: End | None = None
    has_left: bool = False
    finished: bool = False

    @property
    def member(self) -> Member:
        """The member record of the present identity."""
        return structs.replace(self.profile, node=self.node)

    @property
    def leads(self) -> bool:
        """Whether no older member is left. Then this node may write into the log as long as its
        own member record exists.
        """
        return self.joined and not self.older_members

    @property
    def is_alone(self) -> bool:
        """Whether this node leads and, as far as it knows, no other member is there."""
        return self.leads and self.members is not None and len(self.members) <= 1

    @property
    def idle(self) -> bool:
        """Whether no workers run here."""
        return self.workers is WorkersState.NONE or self.workers is WorkersState.ENDED

    @property
    def wait_limit(self) -> float:
        """How long this node waits for a round in all, in seconds."""
        parameters = self.parameters
        return (
            parameters.timeout
            if self.identities
            else min(parameters.timeout, parameters.first_answer)
        )

    @property
    def gives_up_at(self) -> float:
        """When this node gives up, if nothing changes until then; infinite if it waits for nothing
        that has a limit.
        """
        if self.waiting_since is None:
            return float("inf")
        until = self.waiting_since + self.wait_limit - self.waited
        if self.unheard_since is not None and self.has_failed_for_good:
            until = min(until, self.unheard_since + self.parameters.report_limit)
        return until

    @property
    def has_failed_for_good(self) -> bool:
        """Whether this node's workers failed, and as far as it knows no restart can follow."""
        failure = self.outcome.job_failure if self.outcome else None
        if failure is None:
            return False
        last = self.own_round or self.log.last
        return failure.fatal or (
            last is not None and not self.parameters.budget_left(last.restarts)
        )

    def unheard(self, now: float) -> bool:
        """Whether the ledger does not take what this node has to say: it may be away, or answer
        reads and renewals only.
        """
        away = bool(self.ledger_gone) or not self.joined or self.suspended(now)
        return away or self.unanswered_write is not None

    @property
    def has_to_tell(self) -> bool:
        """Whether the others have not heard yet how this node's workers ended: its report is not in
        the ledger, or it ends the job, and the leader has not written that.
        """
        outcome = self.outcome
        if outcome is None:
            return False
        fatal = outcome.job_failure is not None and outcome.job_failure.fatal
        return fatal or (outcome.stage, outcome.say) not in self.reported

    def suspended(self, now: float) -> bool:
        """Whether the lease may be over, by this node's own clock (rule 6)."""
        return self.leased and now >= self.renewed + self.parameters.lease_ttl
