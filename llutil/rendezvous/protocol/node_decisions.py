"""What every node does, leader or not: it takes a lease and joins, starts and stops its workers,
reports, and ends.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from dataclasses import replace

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.end_without_ledger import end_without_ledger
from llutil.rendezvous.protocol.instructions import (
    CloseStore,
    Create,
    DeleteStale,
    End,
    Failed,
    Finish,
    FinishedWell,
    GaveUp,
    Instruction,
    Join,
    Late,
    Leave,
    ReadBack,
    StartWorkers,
    Stopped,
    StopWorkers,
    TakeLease,
    WatchPredecessor,
)
from llutil.rendezvous.protocol.records import Cause, Report, ReportKind, Stage
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["instruction_without_ledger", "known_end", "next_end_step", "own_report", "own_request"]

_CAUSES: dict[type[End], Cause] = {
    FinishedWell: Cause.SUCCEEDED,
    Late: Cause.SUCCEEDED,
    Failed: Cause.FAILED,
    Stopped: Cause.STOPPED,
    GaveUp: Cause.LOST,
}
"""Why workers that still run are stopped, by how the node's part ends."""


def known_end(state: State, now: float) -> End | None:
    """How this node's part ends; None as long as that is not known."""
    marker = state.log.marker
    if (
        marker
        and state.ignored_generation is not None
        and marker.generation > state.ignored_generation
    ):
        match marker.cause:
            case Cause.SUCCEEDED:
                mine = state.succeeded
                if mine and mine.stage == marker.stage:
                    return FinishedWell(mine, marker.why)
                return Late(
                    f"the job succeeded while this node waited: {marker.why}",
                    took_part=marker.has_label(state.profile.label),
                )
            case Cause.FAILED:
                return Failed(replace(marker.job_failure or JobFailure(), why=marker.why))
            case Cause.STOPPED:
                return Stopped(marker.why)
            case _:
                return state.wanted_end or Stopped(marker.why)
    if state.wanted_end and state.wanted_end_since is not None:
        return _wanted_end_now(state, state.wanted_end, state.wanted_end_since, now)
    return None


def _wanted_end_now(state: State, end: End, since: float, now: float) -> End | None:
    """``end``, which this node was asked for; None as long as something should be written first.

    After a stop, the node waits at most one lease for the leader's marker, so that the whole job
    stops. The last node to leave first writes the generation's marker. A node that lingers first
    reports how its workers ended, and, as the leader, waits for the end of its round. All these
    waits have a deadline: a node that stops must not hang if the store does not answer.
    """
    if isinstance(end, GaveUp) and state.unheard(now):
        return end_without_ledger(state, end, now)
    return end if now >= since + _delay(state, end, now) else None


def _delay(state: State, end: End, now: float) -> float:
    """How long this node goes on, in seconds, once ``end`` is all that is left to do."""
    lease_ttl, suspended = state.parameters.lease_ttl, state.suspended(now)
    if state.ledger_gone or not state.joined:
        return 0.0
    if isinstance(end, Stopped):
        return lease_ttl if _concerns_others(state) and not suspended else 0.0
    linger = min(state.linger, state.parameters.timeout)
    if state.has_to_tell and linger:
        return linger
    if state.older_members:
        return 0.0
    if suspended:
        return linger if state.log.running else 0.0
    if not state.log_read_as_leader or state.members is None:
        return lease_ttl
    if not state.is_alone:
        return linger if state.log.running else 0.0
    return lease_ttl + linger if state.log.last else 0.0


def _concerns_others(state: State) -> bool:
    """Whether others must hear that this node was asked to stop the job: the job has other nodes,
    or has begun.
    """
    running = state.log.running
    if running and running.seat(state.node) is None:
        return any(seat.token == state.profile.token for seat in running.seats)
    return not (state.is_alone and state.log.last is None)


def next_end_step(state: State, end: End, now: float) -> Instruction | None:
    """The next instruction of a node whose part has ended; None while its workers stop."""
    if state.workers is WorkersState.RUNNING and state.own_round:
        return StopWorkers(
            state.own_round.stage, end.why, isinstance(end, Failed), _CAUSES.get(type(end))
        )
    if state.workers is WorkersState.STOPPING:
        return None
    if state.store_stage and not isinstance(end, FinishedWell):
        # After a success torch's own agents still meet there, so the driver closes it.
        return CloseStore(state.store_stage, end.why)
    if state.ledger_gone:
        return Finish(end)
    if state.marked_generation and state.joined and not state.suspended(now):
        return DeleteStale(
            Stage(state.marked_generation + 1, 0), f"generation {state.marked_generation} is over"
        )
    if state.leased and not state.has_left:
        return Leave(end.why)
    return Finish(end)


def instruction_without_ledger(state: State, now: float) -> Instruction | None:
    """The next instruction that needs no answer from the ledger: on workers, stores and watches."""
    log = state.log
    if state.workers is WorkersState.RUNNING and state.own_round:
        stop = _stop_of(state, state.own_round.stage)
        if stop:
            return stop
    if state.store_stage and state.idle and (not state.joined or log.is_over(state.store_stage)):
        return CloseStore(state.store_stage, f"{state.store_stage} is over for this node")
    if state.joined and not state.suspended(now) and not state.ledger_gone:
        running = log.running
        if (
            running
            and state.own_round is None
            and not state.wanted_end
            and running.seat(state.node)
        ):
            return StartWorkers(
                running, state.node, f"{running.stage} is sealed, and this node is in it"
            )
        if state.older_members and state.watched_predecessor != state.older_members[-1]:
            return WatchPredecessor(state.older_members[-1], "the youngest of the older members")
    return None


def _stop_of(state: State, stage: Stage) -> StopWorkers | None:
    """How this node's workers of its round ``stage`` have to stop; None if they have not."""
    if state.wanted_end:
        end = state.wanted_end
        return StopWorkers(stage, end.why, round_failed=False, cause=_CAUSES.get(type(end)))
    if not state.leased:
        why = "the ledger says that this node's lease is over"
        # The others go on without this node.
        return StopWorkers(stage, why, round_failed=True, cause=Cause.LOST)
    if state.log.is_over(stage):
        verdict = state.log.verdict_on(stage)
        why = f"{stage} is over: {verdict.why if verdict else 'others went on'}"
        failed = verdict is None or verdict.cause in {Cause.FAILED, Cause.LOST}
        cause = verdict.cause if verdict else Cause.LOST
        return StopWorkers(stage, why, round_failed=failed, cause=cause)
    return None


def own_request(state: State, now: float) -> Instruction | None:
    """The next request about this node's lease, member record or unanswered write; None if there is
    none, or while the node is suspended.
    """
    ticket = state.ticket + 1
    if not state.leased:
        if state.workers is WorkersState.NONE and not state.wanted_end:
            return TakeLease(
                ticket, "this node needs a new identity" if state.identities else "to begin"
            )
        return None
    if state.suspended(now):
        return None
    if not state.joined:
        return None if state.wanted_end else Join(ticket, state.member, "this node has a lease")
    if doubt := state.unanswered_write:
        if state.write_not_found:
            return Create(ticket, doubt.records, f"was not applied before: {doubt.why}")
        return ReadBack(ticket, doubt.records[0], f"was not answered: {doubt.why}")
    return None


def own_report(state: State) -> Create | None:
    """The next report of this node, if one is due. Call it only if joined and not suspended."""
    ticket, log, outcome = state.ticket + 1, state.log, state.outcome
    if outcome and (outcome.stage, outcome.say) not in state.reported:
        return Create(ticket, (outcome,), f"this node's workers {outcome.say}")
    if (
        isinstance(state.wanted_end, Stopped)
        and not state.leads
        and (log.stage, ReportKind.STOP) not in state.reported
    ):
        return Create(
            ticket, (_report(state, ReportKind.STOP, state.wanted_end.why),), state.wanted_end.why
        )
    if (
        state.workers is WorkersState.NONE
        and not state.wanted_end
        and state.node in log.busy
        and not (log.running and log.running.seat(state.node))
        and (log.marker.generation if log.marker else 0) == log.closed
        and (log.stage, ReportKind.BACK) not in state.reported
    ):
        return Create(
            ticket, (_report(state, ReportKind.BACK),), "this node is ready for the next round"
        )
    return None


def _report(state: State, say: ReportKind, why: str = "") -> Report:
    generation, round_ = state.log.stage
    return Report(
        generation=generation,
        round=round_,
        node=state.node,
        say=say,
        why=why,
        token=state.profile.token,
    )
