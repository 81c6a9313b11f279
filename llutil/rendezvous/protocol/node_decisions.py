"""What any node does, leader or not: keep its lease, follow the log, look after its workers,
report, and end.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from dataclasses import replace

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.instructions import (
    CloseStore,
    Create,
    End,
    Failed,
    Finish,
    FinishedWell,
    Instruction,
    Join,
    Late,
    Leave,
    ReadBack,
    StartWorkers,
    Stopped,
    StopWorkers,
    Sweep,
    TakeLease,
    WatchPredecessor,
)
from llutil.rendezvous.protocol.leader_decisions import alone
from llutil.rendezvous.protocol.records import Cause, Report, ReportKind, Stage
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["at_once", "conclusion", "depart", "report", "request"]


def conclusion(state: State, now: float) -> End | None:
    """How this node's part ends, if that is known at ``now``."""
    marker = state.log.marker
    if marker and state.met is not None and marker.generation > state.met:
        match marker.cause:
            case Cause.SUCCEEDED:
                mine = state.succeeded
                if mine and mine.stage == marker.stage:
                    return FinishedWell(mine, marker.why)
                return Late(f"the job succeeded while this node waited: {marker.why}")
            case Cause.FAILED:
                return Failed(replace(marker.job_failure or JobFailure(), why=marker.why))
            case Cause.STOPPED:
                return Stopped(marker.why)
            case _:
                return state.wish or Stopped(marker.why)
    if state.wish and state.wish_since is not None:
        return _wished_end(state, state.wish, state.wish_since, now)
    return None


def _wished_end(state: State, wish: End, since: float, now: float) -> End | None:
    """The end that this node was asked for, unless something is left that it should write first.

    A stop waits one lease for the leader's word, so that the whole job hears of it. A node that
    leaves as the last one writes the generation's marker. Both have a deadline, since who stops
    must not hang on a store.
    """
    if not state.joined or state.suspended(now):
        return wish
    patience = state.rules.lease_ttl
    if isinstance(wish, Stopped):
        patience = patience if _concerns_others(state) else 0.0
    elif state.before:
        patience = 0.0
    elif state.fresh and state.members is not None:
        if not alone(state):
            patience = state.linger
        elif state.log.last is None:
            patience = 0.0
        else:
            patience += state.linger
    return wish if now >= since + patience else None


def _concerns_others(state: State) -> bool:
    """Whether a stop of this node must be told: it is part of a job that has others, or that has
    begun.
    """
    running = state.log.running
    if running and running.seat(state.node) is None:
        return any(seat.token == state.profile.token for seat in running.seats)
    return not (alone(state) and state.log.last is None)


def depart(state: State, end: End, now: float) -> Instruction | None:
    """The next step of a node whose part has ended; None while its workers are being stopped."""
    if state.work is WorkersState.RUNNING and state.seat:
        return StopWorkers(state.seat.stage, end.why)
    if state.work is WorkersState.STOPPING:
        return None
    if state.store_asked:
        return CloseStore(state.store_asked, end.why)
    if state.marked and state.joined and not state.suspended(now):
        return Sweep(Stage(state.marked + 1, 0), f"generation {state.marked} is over")
    if state.leased and not state.left:
        return Leave(end.why)
    return Finish(end)


def at_once(state: State, now: float) -> Instruction | None:
    """What needs no answer from the ledger: workers, stores and watches."""
    log = state.log
    if state.work is WorkersState.RUNNING and state.seat and (why := _reason_to_stop(state)):
        return StopWorkers(state.seat.stage, why)
    if state.store_asked and state.idle and (not state.joined or log.is_over(state.store_asked)):
        return CloseStore(state.store_asked, f"{state.store_asked} is over for this node")
    if state.joined and not state.suspended(now):
        running = log.running
        if running and state.seat is None and not state.wish and running.seat(state.node):
            return StartWorkers(
                running, state.node, f"{running.stage} is sealed, and this node is in it"
            )
        if state.before and state.watched != state.before[-1]:
            return WatchPredecessor(state.before[-1], "the youngest of the older members")
    return None


def _reason_to_stop(state: State) -> str | None:
    if state.wish:
        return state.wish.why
    if not state.leased:
        return "the ledger says that this node's lease is over"
    if state.seat and state.log.is_over(state.seat.stage):
        verdict = state.log.verdict_on(state.seat.stage)
        return f"{state.seat.stage} is over: {verdict.why if verdict else 'others went on'}"
    return None


def request(state: State, now: float) -> Instruction | None:
    """The next request on this node's own behalf, before any report; None while it is suspended."""
    ticket = state.ticket + 1
    if not state.leased:
        if state.work is WorkersState.NONE and not state.wish:
            return TakeLease(
                ticket, "this node needs a new identity" if state.identities else "to begin"
            )
        return None
    if state.suspended(now):
        return None
    if not state.joined:
        return None if state.wish else Join(ticket, state.member, "this node has a lease")
    if doubt := state.doubt:
        if state.absent:
            return Create(ticket, doubt.records, f"was not applied before: {doubt.why}")
        return ReadBack(ticket, doubt.records[0], f"was not answered: {doubt.why}")
    return None


def report(state: State) -> Create | None:
    """What this node has to say to the leader. Call it only if joined and not suspended."""
    ticket, log, outcome = state.ticket + 1, state.log, state.outcome
    if outcome and (outcome.stage, outcome.say) not in state.said:
        return Create(ticket, (outcome,), f"this node's workers {outcome.say}")
    if (
        isinstance(state.wish, Stopped)
        and not state.leads
        and (log.stage, ReportKind.STOP) not in state.said
    ):
        return Create(ticket, (_say(state, ReportKind.STOP, state.wish.why),), state.wish.why)
    if (
        state.work is WorkersState.NONE
        and not state.wish
        and state.node in log.busy
        and not (log.running and log.running.seat(state.node))
        and (log.marker.generation if log.marker else 0) == log.closed
        and (log.stage, ReportKind.BACK) not in state.said
    ):
        return Create(
            ticket, (_say(state, ReportKind.BACK),), "this node is ready for the next round"
        )
    return None


def _say(state: State, say: ReportKind, why: str = "") -> Report:
    generation, round_ = state.log.stage
    return Report(
        generation=generation,
        round=round_,
        node=state.node,
        say=say,
        why=why,
        token=state.profile.token,
    )
