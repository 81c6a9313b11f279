"""What an observation changes in a node's view. Nothing is decided here.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from collections.abc import Iterable

from llutil.rendezvous.protocol.derive_state import settle
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
    Asked,
    Created,
    Existed,
    Found,
    Joined,
    LeaseLost,
    LeaseRenewed,
    LeaseTaken,
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
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["absorb"]


def absorb(state: State, observation: Observation, now: float) -> None:
    """Take in ``observation``, made at ``now``. Answers to requests that were given up change
    nothing.
    """
    match observation:
        case Ticked():
            pass
        case LeaseRenewed(sent=sent):
            state.renewed = max(state.renewed, sent)
        case LeaseLost(node=node):
            if state.leased and node == state.node:  # it may be told twice
                _lose(state)
        case LogSeen(log=log):
            state.log = state.log.merged(log)
        case MembersSeen(members=members):
            if state.leads:
                state.members = members
        case ReportsSeen(stage=stage, reports=reports):
            _note_reports(state, stage, reports)
        case PredecessorGone(name=name):
            state.before = tuple(other for other in state.before if other != name)
        case StoreOpened(stage=stage, host=host, port=port):
            if state.store_asked == stage:
                state.store = (stage, host, port)
        case WorkersEnded():
            _workers_ended(state, observation)
        case WorkersStopped(stage=stage):
            if state.work is WorkersState.STOPPING and state.seat and state.seat.stage == stage:
                state.work = WorkersState.ENDED
        case Asked(why=why, stop=stop, linger=linger):
            if state.wish is None or (stop and isinstance(state.wish, Left)):
                state.wish, state.linger = (Stopped(why) if stop else Left(why)), linger
        case _:
            _take_answer(state, observation, now)
    settle(state, now)


def _take_answer(state: State, answer: Answer, now: float) -> None:
    asked = state.asked
    if asked is None or asked.ticket != answer.ticket:
        return
    state.asked = None
    match answer, asked:
        case LeaseTaken(sent=sent), TakeLease():
            state.leased, state.renewed = True, sent
            state.identities += 1
            state.node = f"{state.profile.name}.{state.identities}"
        case Joined(before=before, log=log), Join():
            state.joined, state.before = True, before
            state.log = state.log.merged(log)
            state.fresh = not before
            if state.met is None:
                _meet(state)
        case LogRead(log=log), ReadLog():
            state.log = state.log.merged(log)
            state.fresh = state.leads
        case ReportsRead(stage=stage, reports=reports), ReadReports():
            _note_reports(state, stage, reports)
            state.checked |= state.checking
        case Created(), Create(records=records):
            _note_written(state, records)
        case Existed(record=record), Create(records=records):
            _note_existing(state, record, records)
        case Found(record=None), ReadBack():
            state.absent = True
        case Found(record=record), ReadBack() if record and state.doubt:
            _note_existing(state, record, state.doubt.records)
        case OwnRecordGone(), Create():
            _lose(state)
        case Unanswered(), _:
            state.retry = now + state.rules.pause
            if isinstance(asked, Create):
                state.doubt, state.absent = asked, False
        case _:
            raise TypeError(f"{answer} answers no {asked}")


def _meet(state: State) -> None:
    """The first look at the log: what ended before this node came is history, unless it came too
    late.
    """
    marker, token = state.log.marker, state.profile.token
    state.met = marker.generation if marker else 0
    if marker is None or marker.cause is not Cause.SUCCEEDED or not token:
        return
    last = state.log.last
    wanted_again = last is not None and any(seat.token == token for seat in last.seats)
    if token in marker.tokens and not wanted_again:
        state.ending = Late(
            f"generation {marker.generation} succeeded before this node came, under the same "
            "rerun token "
            f"{token!r}: there is nothing left to do, and its result is empty"
        )


def _note_reports(state: State, stage: Stage, reports: Iterable[Report]) -> None:
    if stage != state.log.stage:
        return
    for report in reports:
        match report.say:
            case ReportKind.SUCCEEDED | ReportKind.FAILED:
                state.ends[report.node] = report
            case ReportKind.BACK:
                state.backs.add(report.node)
            case ReportKind.STOP:
                state.stops[report.node] = report


def _note_existing(state: State, found: Record, wanted: tuple[Record, ...]) -> None:
    """A key that was to be written holds ``found``. If that is what was to be written, all of it
    was.
    """
    _note_written(state, wanted if found == wanted[0] else (found,))


def _note_written(state: State, records: tuple[Record, ...]) -> None:
    state.doubt = None
    earlier = state.log.assignment
    state.log = state.log.with_records(records)
    for record in records:
        match record:
            case Assignment() if earlier is not None:
                state.sweep = record.stage
            case Marker() if record.by == state.node:
                state.marked = record.generation
            case Report():
                state.said.add((record.stage, record.say))
            case _:
                pass


def _lose(state: State) -> None:
    """The identity is gone, and with it all that only it could do. Its workers must end too."""
    state.leased = state.joined = state.fresh = state.watching_members = False
    state.before, state.watched, state.watching_reports = (), None, None
    state.asked = state.doubt = state.members = None
    state.kept, state.sweep = 0, None
    state.said = set()


def _workers_ended(state: State, ended: WorkersEnded) -> None:
    stopping = state.work is WorkersState.STOPPING
    if not (stopping or state.work is WorkersState.RUNNING):
        return
    if state.seat is None or state.seat.stage != ended.stage:
        return
    succeeded = ended.job_failure is None
    if stopping and succeeded:
        return  # too late: WorkersStopped follows
    state.work = WorkersState.ENDED
    if succeeded:
        state.succeeded = state.seat
    state.outcome = Report(
        generation=ended.stage.generation,
        round=ended.stage.round,
        node=state.node,
        say=ReportKind.SUCCEEDED if succeeded else ReportKind.FAILED,
        job_failure=ended.job_failure,
        token=state.profile.token,
    )
