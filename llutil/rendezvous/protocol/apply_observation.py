"""Changes a node's state after an observation. Nothing is decided here.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from llutil.rendezvous.protocol.apply_gates import apply_gates, drop_heard_wishes, note_own
from llutil.rendezvous.protocol.derive_state import derive_state
from llutil.rendezvous.protocol.gate_part import GatePart
from llutil.rendezvous.protocol.gate_records import Wish
from llutil.rendezvous.protocol.growth_steps import follow_growth
from llutil.rendezvous.protocol.instructions import (
    Create,
    Join,
    Late,
    Left,
    ReadBack,
    ReadLog,
    ReadReports,
    Stopped,
    TakeLease,
)
from llutil.rendezvous.protocol.observations import (
    Answer,
    AnswersSeen,
    CheckpointSaved,
    Created,
    EndRequested,
    Existed,
    Found,
    GateRaised,
    Joined,
    LeaseLost,
    LeaseRenewed,
    LeaseTaken,
    LedgerGone,
    LogRead,
    LogSeen,
    MembersSeen,
    Observation,
    OwnRecordGone,
    PredecessorGone,
    ReportsRead,
    ReportsSeen,
    StoreOpened,
    Ticked,
    Unanswered,
    WishMade,
    WorkersEnded,
    WorkersStopped,
)
from llutil.rendezvous.protocol.records import (
    Assignment,
    Cause,
    Marker,
    Record,
    Report,
    ReportKind,
    Stage,
)
from llutil.rendezvous.protocol.run_history import RunHistory
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["apply_observation"]


def apply_observation(state: State, observation: Observation, now: float) -> None:
    """Change ``state`` by ``observation``, made at ``now``. An answer to a request that was given
    up changes nothing.
    """
    match observation:
        case Ticked():
            pass
        case LeaseRenewed(sent=sent):
            state.renewed = max(state.renewed, sent)
        case LeaseLost(node=node):
            if state.leased and node == state.node:  # the driver may say it twice
                _lose_identity(state)
        case LedgerGone(why=why):
            state.ledger_gone = state.ledger_gone or why
        case LogSeen(log=log):
            state.log = state.log.merged(log)
        case MembersSeen(members=members):
            if state.leads:
                state.members = members
        case ReportsSeen(stage=stage, reports=reports):
            _note_reports(state, stage, reports)
        case PredecessorGone(name=name):
            state.older_members = tuple(other for other in state.older_members if other != name)
        case StoreOpened(stage=stage, host=host, port=port):
            if state.store_stage == stage:
                state.bound_store = (stage, host, port)
        case WorkersEnded():
            _workers_ended(state, observation)
        case WorkersStopped(stage=stage):
            if (
                state.workers is WorkersState.STOPPING
                and state.own_round
                and state.own_round.stage == stage
            ):
                state.workers = WorkersState.ENDED
        case EndRequested(why=why, stop=stop, linger=linger):
            if state.wanted_end is None or (stop and isinstance(state.wanted_end, Left)):
                state.wanted_end, state.linger = (Stopped(why) if stop else Left(why)), linger
            elif isinstance(state.wanted_end, Left):
                state.linger = linger
        case WishMade() | GateRaised() | CheckpointSaved() | AnswersSeen():
            apply_gates(state, observation, now)
        case _:
            _take_answer(state, observation, now)
    derive_state(state, now)
    drop_heard_wishes(state)
    follow_growth(state, now)


def _take_answer(state: State, answer: Answer, now: float) -> None:
    asked = state.pending
    if asked is None or asked.ticket != answer.ticket:
        return
    state.pending = None
    match answer, asked:
        case LeaseTaken(sent=sent, new_store=new_store), TakeLease():
            if new_store:
                _forget_run(state)
            state.leased, state.renewed = True, sent
            state.identities += 1
            state.node = f"{state.profile.name}.{state.identities}"
        case Joined(before=before, log=log), Join():
            state.joined, state.older_members = True, before
            state.log = state.log.merged(log)
            state.log_read_as_leader = not before
            if state.ignored_generation is None:
                _take_first_look(state)
        case LogRead(log=log), ReadLog():
            state.log = state.log.merged(log)
            state.log_read_as_leader = state.leads
        case ReportsRead(stage=stage, reports=reports), ReadReports():
            _note_reports(state, stage, reports)
            state.checked_nodes |= state.nodes_being_checked
        case Created(), Create(records=records):
            _note_written(state, records)
        case Existed(record=record), Create(records=records):
            _note_existing(state, record, records)
        case Found(record=None), ReadBack():
            state.write_not_found = True
        case Found(record=record), ReadBack() if record and state.unanswered_write:
            _note_existing(state, record, state.unanswered_write.records)
        case OwnRecordGone(), Create():
            _lose_identity(state)
        case Unanswered(), _:
            state.retry_at = now + state.parameters.retry_pause
            if isinstance(asked, Create):
                # A repetition says that it is one; the reason stays that of the first attempt.
                state.unanswered_write = state.unanswered_write or asked
                state.write_not_found = False
        case _:
            raise TypeError(f"{answer} answers no {asked}")


def _take_first_look(state: State) -> None:
    """Ignore the generations that ended before this node came. But if the last one succeeded under
    this node's rerun token, the node is late, and ends.
    """
    marker, token = state.log.marker, state.profile.token
    state.ignored_generation = marker.generation if marker else 0
    if marker is None or marker.cause is not Cause.SUCCEEDED or not token:
        return
    last = state.log.last
    wanted_again = last is not None and any(seat.token == token for seat in last.seats)
    if token in marker.tokens and not wanted_again:
        state.decided_end = Late(
            f"generation {marker.generation} succeeded before this node came, under the same "
            "rerun token "
            f"{token!r}: there is nothing left to do, and its result is empty",
            took_part=marker.has_label(state.profile.label),
        )


def _note_reports(state: State, stage: Stage, reports: tuple[Report | Wish, ...]) -> None:
    if stage != state.log.stage:
        return
    for report in state.reports.note(reports):
        if isinstance(report, Report) and report.say is ReportKind.BACK:
            state.presence.unready.discard(report.node)


def _note_existing(state: State, found: Record, wanted: tuple[Record, ...]) -> None:
    """The first key of a write holds ``found``. If that is the record which was to be written, all
    records of the write were written, since it is one transaction.
    """
    _note_written(state, wanted if found == wanted[0] else (found,))


def _note_written(state: State, records: tuple[Record, ...]) -> None:
    state.unanswered_write = None
    earlier = state.log.assignment
    state.log = state.log.with_records(records)
    for record in records:
        match record:
            case Assignment() if earlier is not None:
                state.stale_before = record.stage
            case Marker() if record.by == state.node:
                state.marked_generation = record.generation
            case Report():
                state.reported.add((record.stage, record.say))
                own_success = record.say is ReportKind.SUCCEEDED
                if own_success and record.stage == state.log.stage:
                    state.reports.add(record)  # of failures, the ledger's order counts
            case _:
                note_own(state, record)


def _lose_identity(state: State) -> None:
    """The identity is over: forget its member record, its watches and its requests."""
    state.leased = state.joined = state.log_read_as_leader = state.watching_members = False
    state.older_members, state.watched_predecessor, state.watching_reports = (), None, None
    state.pending = state.unanswered_write = state.members = None
    state.renewed_generation, state.stale_before = 0, None
    state.reported = set()
    state.gates.forget_watch()


def _forget_run(state: State) -> None:
    """The run begins anew, in a store without records. What this node knows of it is of a run that
    nobody can go on with.
    """
    state.log, state.ignored_generation = RunHistory(), None
    state.gates = GatePart(wishes=state.gates.wishes)
    state.outcome = state.succeeded = None
    state.marked_generation = 0


def _workers_ended(state: State, ended: WorkersEnded) -> None:
    stopping = state.workers is WorkersState.STOPPING
    if not (stopping or state.workers is WorkersState.RUNNING):
        return
    if state.own_round is None or state.own_round.stage != ended.stage:
        return
    succeeded = ended.job_failure is None
    if stopping and succeeded and state.parameters.runs_again:
        return  # too late: WorkersStopped follows
    state.workers = WorkersState.ENDED
    if succeeded:
        state.succeeded = state.own_round
    state.outcome = Report(
        generation=ended.stage.generation,
        round=ended.stage.round,
        node=state.node,
        say=ReportKind.SUCCEEDED if succeeded else ReportKind.FAILED,
        job_failure=ended.job_failure,
        token=state.profile.token,
    )
