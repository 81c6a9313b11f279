"""When a round ends, and how. Only the leader asks.

Choices that rules 5, 7 and 8 of the protocol leave open, and why they are made this way:

* What a report could still overrule, a lost member or a newcomer, is decided only on reports that
  were read after it was seen: the watch of the reports may lag behind that of the members. A lost
  node's own record is gone, so it cannot report any more, and the read is conclusive.
* A failure ends its round at once, also if no restarts are left: the others must hear of it.
  Whether it ends the job too is decided once their workers are gone (see ``seating``), since it may
  turn out that a member was lost.
* A failure of which its node says that starting again cannot help ends the job with the round.
* The failure that counts is the first one that the ledger took. But a rank that only says that a
  peer went away, an echo, is often heard before the peer's own node, which has processes to end: so
  it counts only if nobody says more, and as long as somebody may, the round gets a short hearing
  before it ends. A member that is lost meanwhile is the cause itself.
* A stop outranks a failure, success outranks a stop: nothing is left to be stopped.

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

__all__ = ["Recheck", "VerdictInput", "described", "first_report_of_failure", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictInput:
    """What the leader ``me`` knows while a round runs.

    ``ends`` are the members' reports of success or failure, in the order in which the ledger took
    them; ``stop`` a reason to stop the whole job, if there is one. ``living`` are all nodes with a
    member record; ``ready`` those that could be in a round now. ``checked`` are the nodes that were
    seen to be lost or new before the reports were last read anew. ``failed_since``: since when a
    failure has been known, by the leader's own clock; None if none is.
    """

    me: str
    rules: ProtocolParameters
    round: Assignment
    ends: Mapping[str, Report]
    stop: str | None
    living: AbstractSet[str]
    ready: Sequence[str]
    checked: frozenset[str]
    failed_since: float | None


@dataclass(frozen=True, slots=True)
class Recheck:
    """Read the reports anew, and decide then: these nodes are lost or new."""

    nodes: frozenset[str]
    why: str


def judge(bench: VerdictInput, now: float) -> Verdict | Recheck | NotYet:
    """Whether the round ends at ``now``, and how."""
    seats = bench.round.nodes
    succeeded = [node for node in seats if _says(bench, node, ReportKind.SUCCEEDED)]
    if len(succeeded) == len(seats):
        why = f"all {len(seats)} nodes succeeded"
        return _verdict(bench, Cause.SUCCEEDED, why, seats, final=True)
    if bench.stop is not None:
        return _verdict(bench, Cause.STOPPED, bench.stop, final=True)
    failed = first_report_of_failure(bench.round, bench.ends)
    if failed is not None:
        return _on_failure(bench, failed, now)
    return _on_change(bench, succeeded)


def first_report_of_failure(round_: Assignment, ends: Mapping[str, Report]) -> Report | None:
    """The report of the failure that counts; None if all is well.

    ``ends`` are in the order in which the ledger took them.
    """
    seats = round_.nodes
    failed = [end for end in ends.values() if end.say is ReportKind.FAILED and end.node in seats]
    return first_failure(failed, _told)


def described(failed: Report) -> str:
    """A failure in words."""
    why = _told(failed).why
    return f"{failed.node} failed: {why}" if why else f"{failed.node} failed"


def _told(failed: Report) -> JobFailure:
    return failed.job_failure or JobFailure()


def _says(bench: VerdictInput, node: str, say: ReportKind) -> bool:
    report = bench.ends.get(node)
    return report is not None and report.say is say


def _on_failure(bench: VerdictInput, failed: Report, now: float) -> Verdict | Recheck | NotYet:
    why, told = described(failed), _told(failed)
    if told.echo and not told.fatal:
        if lost := _lost(bench):
            return _unless_reported(bench, lost)
        silent = [n for n in bench.round.nodes if n in bench.living and n not in bench.ends]
        until = (now if bench.failed_since is None else bench.failed_since) + bench.rules.hearing
        if silent and now < until:
            return NotYet(until, f"{why}; what {', '.join(silent)} may say of the cause is awaited")
    if told.fatal:
        why += "; starting again cannot help"
    elif not bench.rules.budget_left(bench.round.restarts):
        why += "; no restarts are left, unless a member turns out to be lost"
    return _verdict(
        bench, Cause.FAILED, why, (failed.node,), final=told.fatal, told=failed.job_failure
    )


def _on_change(bench: VerdictInput, succeeded: Sequence[str]) -> Verdict | Recheck | NotYet:
    seats = bench.round.nodes
    if lost := _lost(bench):
        return _unless_reported(bench, lost)
    new = [node for node in bench.ready if node not in seats]
    if new and len(seats) < bench.rules.max_nodes and not succeeded:
        if not bench.checked.issuperset(new):
            return Recheck(frozenset(new), f"{', '.join(new)} came; has anybody reported success?")
        why = f"{', '.join(new)} came, and {len(seats)} of {bench.rules.max_nodes} places are taken"
        return _verdict(bench, Cause.GROWN, why, new)
    return NotYet(float("inf"), f"{len(succeeded)} of {len(seats)} nodes have succeeded")


def _lost(bench: VerdictInput) -> list[str]:
    """Members that are gone, and have not reported as far as is known."""
    seats = bench.round.nodes
    return [node for node in seats if node not in bench.living and node not in bench.ends]


def _unless_reported(bench: VerdictInput, lost: Sequence[str]) -> Verdict | Recheck:
    """The round ends for the loss of ``lost``, once it is certain that none of them reported
    success.
    """
    names = ", ".join(lost)
    if not bench.checked.issuperset(lost):
        return Recheck(frozenset(lost), f"{names}: record gone; did it report before?")
    why = f"{names} was lost" if len(lost) == 1 else f"{names} were lost"
    return _verdict(bench, Cause.LOST, why, lost)


def _verdict(
    bench: VerdictInput,
    cause: Cause,
    why: str,
    nodes: Sequence[str] = (),
    *,
    final: bool = False,
    told: JobFailure | None = None,
) -> Verdict:
    return Verdict(
        generation=bench.round.generation,
        round=bench.round.round,
        cause=cause,
        final=final,
        by=bench.me,
        why=why,
        nodes=tuple(nodes),
        job_failure=told,
    )
