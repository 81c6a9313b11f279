"""What the leader does beside its own part: it watches the members, seals rounds, gives verdicts,
and asks the nodes of a round for their steps if somebody wishes something of their ranks.

A node leads once no older member record is left; no new record can be older. Its writes are guarded
by its own member record, so they fail as soon as another node may lead. Before it acts, it reads
the log once after its predecessors have gone. From then on nobody else writes into the log, so it
knows the log exactly. This module may import nothing but the standard library and the room's values
and decisions.
"""

from __future__ import annotations

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.gate_steps import leader_gate_step
from llutil.rendezvous.protocol.growth_steps import growth_hold
from llutil.rendezvous.protocol.instructions import (
    Create,
    DeleteStale,
    GaveUp,
    Instruction,
    Left,
    OpenStore,
    ReadLog,
    ReadReports,
    RenewGeneration,
    Stopped,
    WatchMembers,
    WatchReports,
)
from llutil.rendezvous.protocol.records import (
    Assignment,
    Cause,
    Marker,
    Record,
    Report,
    ReportKind,
    Stage,
    Verdict,
)
from llutil.rendezvous.protocol.round_reports import RoundReports, describe_failure
from llutil.rendezvous.protocol.seal_decision import (
    Incompatible,
    NoRoundFollows,
    NotYet,
    Seal,
    SealInput,
    decide_seal,
)
from llutil.rendezvous.protocol.state import State
from llutil.rendezvous.protocol.verdict_decision import (
    Recheck,
    VerdictInput,
    decide_verdict,
)

__all__ = ["next_leader_step"]

_FOREVER = float("inf")


def next_leader_step(state: State, now: float) -> Instruction | NotYet | Incompatible:
    """The leader's next step. Call it only if ``state.leads`` and no request is under way."""
    log = state.log
    if not state.log_read_as_leader:
        return ReadLog(
            state.ticket + 1, "this node leads now, and must know what the last leader wrote"
        )
    if not state.watching_members:
        return WatchMembers("this node leads")
    if state.watching_reports != log.stage:
        return WatchReports(log.stage, "this node leads")
    if log.last and state.renewed_generation != log.generation:
        return RenewGeneration(log.generation, "this node leads")
    if state.stale_before:
        return DeleteStale(state.stale_before, f"{state.stale_before} is sealed")
    if state.members is None:
        return NotYet(_FOREVER, "waiting for a first look at the members")
    if log.closed and not (log.marker and log.marker.generation == log.closed):
        return NotYet(_FOREVER, "waiting to see the marker that came with the final verdict")
    leaves_last = state.is_alone and isinstance(state.wanted_end, Left | GaveUp)
    if log.running:
        step = _decide_running_round(state, log.running, now)
        if not isinstance(step, NotYet):
            return step
        if not leaves_last:
            return _with_gates(state, log.running, step, now)
    elif log.last and (mark := _mark_by_late_reports(state, log.last)):
        return mark
    if leaves_last:
        return _mark_left(state)
    if stop := _stop_reason(state):
        return _mark(state, Cause.STOPPED, stop)
    if state.wanted_end:
        return NotYet(_FOREVER, "leaving")
    return _seal(state, now)


def _stop_reason(state: State) -> str | None:
    if isinstance(state.wanted_end, Stopped):
        return state.wanted_end.why
    for node, report in state.reports.stops.items():
        return f"{node} was asked to stop the job: {report.why}"
    return None


def _decide_running_round(state: State, running: Assignment, now: float) -> Instruction | NotYet:
    known = VerdictInput(
        me=state.node,
        parameters=state.parameters,
        round=running,
        reports=_own_success(state, running) or state.reports,
        stop=_stop_reason(state),
        presence=state.presence,
        checked=state.checked_nodes,
        failed_since=state.failed_since,
        growth=growth_hold(state, now),
    )
    match decide_verdict(known, now):
        case Verdict() as verdict:
            return _end_round(state, verdict)
        case Recheck(nodes=nodes, why=why):
            return ReadReports(state.ticket + 1, running.stage, nodes, why)
        case NotYet() as not_yet:
            return not_yet


def _with_gates(
    state: State, running: Assignment, nothing: NotYet, now: float
) -> Instruction | NotYet:
    """What is to be done about gates, if ``nothing`` is to be done about the round."""
    step = leader_gate_step(state, running, now)
    if isinstance(step, NotYet):
        return NotYet(min(step.until, nothing.until), step.why)
    return step or nothing


def _own_success(state: State, running: Assignment) -> RoundReports | None:
    """The report of success that this node could not write, if it was all of the round and lost
    its lease then: nobody else can have ended the round, and no other rank has to run again.
    """
    if len(running.seats) > 1 or state.succeeded != running:
        return None
    (node,) = running.nodes
    report = Report(
        generation=running.generation,
        round=running.round,
        node=node,
        say=ReportKind.SUCCEEDED,
    )
    return RoundReports.of(running.nodes, [report])


def _end_round(state: State, verdict: Verdict) -> Create:
    records: tuple[Record, ...] = (verdict,)
    if verdict.final:
        marker = _marker(state, verdict.cause, verdict.why, verdict.job_failure)
        records = (verdict, marker)
    return Create(state.ticket + 1, records, verdict.why)


def _mark(state: State, cause: Cause, why: str, job_failure: JobFailure | None = None) -> Create:
    """End the generation while no round runs."""
    return Create(state.ticket + 1, (_marker(state, cause, why, job_failure),), why)


def _mark_by_late_reports(state: State, last: Assignment) -> Create | None:
    """End the generation if reports that came after the verdict on its last round say that no other
    round is wanted: all have succeeded and do not run again, or one says that starting again cannot
    help.
    """
    if not state.parameters.runs_again and state.reports.all_succeeded:
        return _mark(state, Cause.SUCCEEDED, f"all {len(last.nodes)} nodes succeeded")
    failed = state.reports.failure
    if failed is None or failed.job_failure is None or not failed.job_failure.fatal:
        return None
    why = f"{describe_failure(failed)}; starting again cannot help"
    return _mark(state, Cause.FAILED, why, failed.job_failure)


def _mark_failed(state: State, found: NoRoundFollows) -> Create:
    """End the generation: its last round is over, and no other can follow. By now every living
    member has reported what it knows of the failure.
    """
    verdict = state.log.verdict_on(state.log.stage)
    assert verdict is not None
    failed = state.reports.failure
    if failed is None:
        return _mark(state, Cause.FAILED, f"{verdict.why}; {found.why}", verdict.job_failure)
    return _mark(
        state, Cause.FAILED, f"{describe_failure(failed)}; {found.why}", failed.job_failure
    )


def _mark_left(state: State) -> Instruction | NotYet:
    assert state.wanted_end is not None
    why = f"the last node left: {state.wanted_end.why}"
    if running := state.log.running:
        verdict = Verdict(
            generation=running.generation,
            round=running.round,
            cause=Cause.LEFT,
            final=True,
            by=state.node,
            why=why,
        )
        return _end_round(state, verdict)
    if state.log.last:
        return _mark(state, Cause.LEFT, why)
    return NotYet(_FOREVER, "leaving a run in which no generation is open")


def _marker(state: State, cause: Cause, why: str, job_failure: JobFailure | None) -> Marker:
    last = state.log.last
    seats = last.seats if last else ()
    away = last.away if last else ()
    tokens = {seat.token for seat in seats}
    if cause is Cause.STOPPED:  # nodes that wait with the token of the node that stopped end too
        tokens |= {report.token for report in state.reports.stops.values()}
        if isinstance(state.wanted_end, Stopped):
            tokens.add(state.profile.token)
    return Marker(
        generation=state.log.generation,
        round=last.round if last else 0,
        cause=cause,
        by=state.node,
        why=why,
        nodes=(*(seat.node for seat in seats), *away),
        labels=tuple(seat.label for seat in seats),
        tokens=tuple(sorted(tokens)),
        job_failure=job_failure,
    )


def _seal(state: State, now: float) -> Instruction | NotYet | Incompatible:
    log = state.log
    known = SealInput(
        me=state.node,
        parameters=state.parameters,
        log=log,
        presence=state.presence,
        done=frozenset() if state.parameters.runs_again else state.reports.succeeded,
        quorum_since=state.quorum_since,
        ended_since=now if state.ended_since is None else state.ended_since,
    )
    decision = decide_seal(known, now)
    if isinstance(decision, Incompatible):
        return decision
    if isinstance(decision, NoRoundFollows):
        return _mark_failed(state, decision)
    stage = Stage(log.generation, log.stage.round + 1)
    if state.store_stage is None:
        return OpenStore(stage, "the round that this node seals will need it")
    if isinstance(decision, NotYet):
        return decision
    if state.bound_store is None or state.bound_store[0] != stage:
        return NotYet(_FOREVER, "waiting for the store's port")
    return _assign(state, stage, decision, state.bound_store)


def _assign(state: State, stage: Stage, seal: Seal, store: tuple[Stage, str, int]) -> Create:
    _, host, port = store
    assignment = Assignment(
        generation=stage.generation,
        round=stage.round,
        restarts=seal.restarts,
        seats=seal.seats,
        host=host,
        port=port,
        by=state.node,
        away=seal.away,
    )
    return Create(state.ticket + 1, (assignment,), seal.why)
