"""Decides when a round ends, and how. Only the leader asks.

Rules 5, 7 and 8 of the protocol leave some choices open. They are made as follows:

* A lost member or a new node ends a round only if no report says otherwise. The watch of the
  reports may be behind the watch of the members, so the reports are read again after the loss or
  the new node was seen. A lost node's own record is gone, so it cannot report after that read.
* A failure ends its round at once, even if no restart is left: the other nodes must hear of it.
  Whether it also ends the job is decided once their workers are gone (see ``seal_decision``), since
  a member may turn out to be lost.
* A failure whose node says that a restart cannot help ends the job together with the round.
* The failure that counts is the first one in the ledger. There is one exception: an echo, that is,
  a rank's error that only says that a peer went away. Echoes often arrive before the report of that
  peer's node, which first has to end its processes. So an echo counts only if there is nothing
  else, and the round goes on for ``cause_wait`` as long as a living member has not reported. If a
  member is lost in that time, the loss is the cause.
* A stop comes before a failure, and a success before a stop: then nothing is left to be stopped.

A decision here is a function of its arguments. This module may import nothing but the standard
library and the room's values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.presence import Presence, named
from llutil.rendezvous.protocol.records import Assignment, Cause, Report, Verdict
from llutil.rendezvous.protocol.round_reports import RoundReports, describe_failure, failure_of
from llutil.rendezvous.protocol.seal_decision import NotYet

__all__ = [
    "Recheck",
    "VerdictInput",
    "decide_verdict",
    "newcomers",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictInput:
    """What the leader ``me`` knows while a round runs.

    ``stop`` is a reason to stop the whole job, or None. ``checked`` are the nodes that were seen to
    be lost or new before the last read of the reports. ``failed_since``: since when a failure has
    been known, by the leader's own clock; None if there is none. ``growth``: until when a newcomer
    has to wait for a checkpoint of the round's ranks; or what the verdict says of that.
    """

    me: str
    parameters: ProtocolParameters
    round: Assignment
    reports: RoundReports
    stop: str | None
    presence: Presence
    checked: frozenset[str]
    failed_since: float | None
    growth: NotYet | str = ""


@dataclass(frozen=True, slots=True)
class Recheck:
    """Read the reports again before the decision, since these nodes are lost or new."""

    nodes: frozenset[str]
    why: str


def decide_verdict(known: VerdictInput, now: float) -> Verdict | Recheck | NotYet:
    """Whether the round ends at ``now``, and how."""
    seats = known.round.nodes
    if known.reports.all_succeeded:
        why = f"all {len(seats)} nodes succeeded"
        return _verdict(known, Cause.SUCCEEDED, why, seats, final=True)
    if known.stop is not None:
        return _verdict(known, Cause.STOPPED, known.stop, final=True)
    if known.reports.failure is not None:
        return _on_failure(known, known.reports.failure, now)
    return _on_membership(known)


def _on_failure(known: VerdictInput, failed: Report, now: float) -> Verdict | Recheck | NotYet:
    why, told = describe_failure(failed), failure_of(failed)
    if told.echo and not told.fatal:
        if lost := _lost(known):
            return _lost_unless_reported(known, lost)
        living = known.round.node_set & known.presence.living
        silent = living.difference(known.reports.ends)
        since = now if known.failed_since is None else known.failed_since
        until = since + known.parameters.cause_wait
        if silent and now < until:
            return NotYet(until, f"{why}; {named(silent)} may still report the cause")
    if told.fatal:
        why += "; starting again cannot help"
    elif not known.parameters.budget_left(known.round.restarts):
        why += "; no restarts are left, unless a member turns out to be lost"
    return _verdict(
        known, Cause.FAILED, why, (failed.node,), final=told.fatal, told=failed.job_failure
    )


def _on_membership(known: VerdictInput) -> Verdict | Recheck | NotYet:
    seats, most = len(known.round.seats), known.parameters.max_nodes
    if lost := _lost(known):
        return _lost_unless_reported(known, lost)
    if new := newcomers(known.round, known.presence, known.reports, most):
        if isinstance(known.growth, NotYet):
            return known.growth
        if not known.checked.issuperset(new):
            return Recheck(frozenset(new), f"{named(new)} came; has anybody reported success?")
        why = f"{named(new)} came, and {seats} of {most} places are taken"
        why = f"{why}; {known.growth}" if known.growth else why
        return _verdict(known, Cause.GROWN, why, new)
    succeeded = len(known.reports.succeeded)
    return NotYet(float("inf"), f"{succeeded} of {seats} nodes have succeeded")


def newcomers(
    running: Assignment, presence: Presence, reports: RoundReports, most: int
) -> list[str]:
    """Nodes that could be let into the round ``running``, in order of arrival. There are none if it
    has no place left, or somebody has succeeded.
    """
    seats = running.node_set
    if len(seats) >= most or reports.succeeded:
        return []
    new = presence.living.difference(seats, presence.unready)
    return [one.node for one in presence.members if one.node in new] if new else []


def _lost(known: VerdictInput) -> list[str]:
    """Members whose record is gone, and of which no report is known."""
    gone = known.round.node_set.difference(known.presence.living).difference(known.reports.ends)
    return [node for node in known.round.nodes if node in gone] if gone else []


def _lost_unless_reported(known: VerdictInput, lost: Sequence[str]) -> Verdict | Recheck:
    """The verdict on the loss of ``lost``. Before it, the reports are read again, so that it is
    certain that none of them has reported success.
    """
    if not known.checked.issuperset(lost):
        return Recheck(frozenset(lost), f"{named(lost)}: record gone; did it report before?")
    why = f"{named(lost)} was lost" if len(lost) == 1 else f"{named(lost)} were lost"
    return _verdict(known, Cause.LOST, why, lost)


def _verdict(
    known: VerdictInput,
    cause: Cause,
    why: str,
    nodes: Sequence[str] = (),
    *,
    final: bool = False,
    told: JobFailure | None = None,
) -> Verdict:
    return Verdict(
        generation=known.round.generation,
        round=known.round.round,
        cause=cause,
        final=final,
        by=known.me,
        why=why,
        nodes=tuple(nodes),
        job_failure=told,
    )
