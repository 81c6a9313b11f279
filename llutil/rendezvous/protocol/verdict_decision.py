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

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from llutil.failure import JobFailure, first_failure
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Assignment, Cause, Report, ReportKind, Verdict
from llutil.rendezvous.protocol.seal_decision import NotYet

__all__ = [
    "Recheck",
    "VerdictInput",
    "decide_verdict",
    "describe_failure",
    "first_report_of_failure",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictInput:
    """What the leader ``me`` knows while a round runs.

    ``ends`` are the members' reports of success or failure, in the order in which the ledger took
    them. ``stop`` is a reason to stop the whole job, or None. ``living`` are all nodes with a
    member record, ``ready`` those that could be in a round now. ``checked`` are the nodes that were
    seen to be lost or new before the last read of the reports. ``failed_since``: since when a
    failure has been known, by the leader's own clock; None if there is none.
    """

    me: str
    parameters: ProtocolParameters
    round: Assignment
    ends: Mapping[str, Report]
    stop: str | None
    living: AbstractSet[str]
    ready: Sequence[str]
    checked: frozenset[str]
    failed_since: float | None


@dataclass(frozen=True, slots=True)
class Recheck:
    """Read the reports again before the decision, since these nodes are lost or new."""

    nodes: frozenset[str]
    why: str


def decide_verdict(known: VerdictInput, now: float) -> Verdict | Recheck | NotYet:
    """Whether the round ends at ``now``, and how."""
    seats = known.round.nodes
    succeeded = [node for node in seats if _has_reported(known, node, ReportKind.SUCCEEDED)]
    if len(succeeded) == len(seats):
        why = f"all {len(seats)} nodes succeeded"
        return _verdict(known, Cause.SUCCEEDED, why, seats, final=True)
    if known.stop is not None:
        return _verdict(known, Cause.STOPPED, known.stop, final=True)
    failed = first_report_of_failure(known.round, known.ends)
    if failed is not None:
        return _on_failure(known, failed, now)
    return _on_membership(known, succeeded)


def first_report_of_failure(round_: Assignment, ends: Mapping[str, Report]) -> Report | None:
    """The report of the failure that counts; None if nothing has failed.

    ``ends`` are in the order in which the ledger took them.
    """
    seats = round_.nodes
    failed = [end for end in ends.values() if end.say is ReportKind.FAILED and end.node in seats]
    return first_failure(failed, _failure_of)


def describe_failure(failed: Report) -> str:
    """A failure in words."""
    why = _failure_of(failed).why
    return f"{failed.node} failed: {why}" if why else f"{failed.node} failed"


def _failure_of(failed: Report) -> JobFailure:
    return failed.job_failure or JobFailure()


def _has_reported(known: VerdictInput, node: str, say: ReportKind) -> bool:
    report = known.ends.get(node)
    return report is not None and report.say is say


def _on_failure(known: VerdictInput, failed: Report, now: float) -> Verdict | Recheck | NotYet:
    why, told = describe_failure(failed), _failure_of(failed)
    if told.echo and not told.fatal:
        if lost := _lost(known):
            return _lost_unless_reported(known, lost)
        silent = [n for n in known.round.nodes if n in known.living and n not in known.ends]
        since = now if known.failed_since is None else known.failed_since
        until = since + known.parameters.cause_wait
        if silent and now < until:
            return NotYet(until, f"{why}; {', '.join(silent)} may still report the cause")
    if told.fatal:
        why += "; starting again cannot help"
    elif not known.parameters.budget_left(known.round.restarts):
        why += "; no restarts are left, unless a member turns out to be lost"
    return _verdict(
        known, Cause.FAILED, why, (failed.node,), final=told.fatal, told=failed.job_failure
    )


def _on_membership(known: VerdictInput, succeeded: Sequence[str]) -> Verdict | Recheck | NotYet:
    seats = known.round.nodes
    if lost := _lost(known):
        return _lost_unless_reported(known, lost)
    new = [node for node in known.ready if node not in seats]
    if new and len(seats) < known.parameters.max_nodes and not succeeded:
        if not known.checked.issuperset(new):
            return Recheck(frozenset(new), f"{', '.join(new)} came; has anybody reported success?")
        most = known.parameters.max_nodes
        why = f"{', '.join(new)} came, and {len(seats)} of {most} places are taken"
        return _verdict(known, Cause.GROWN, why, new)
    return NotYet(float("inf"), f"{len(succeeded)} of {len(seats)} nodes have succeeded")


def _lost(known: VerdictInput) -> list[str]:
    """Members whose record is gone, and of which no report is known."""
    seats = known.round.nodes
    return [node for node in seats if node not in known.living and node not in known.ends]


def _lost_unless_reported(known: VerdictInput, lost: Sequence[str]) -> Verdict | Recheck:
    """The verdict on the loss of ``lost``. Before it, the reports are read again, so that it is
    certain that none of them has reported success.
    """
    names = ", ".join(lost)
    if not known.checked.issuperset(lost):
        return Recheck(frozenset(lost), f"{names}: record gone; did it report before?")
    why = f"{names} was lost" if len(lost) == 1 else f"{names} were lost"
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
