"""Changes what a node knows of its round's gates, after an observation, a write or an instruction.
Nothing is decided here.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from llutil.rendezvous.protocol.gate_messages import (
    AnswersSeen,
    CheckpointSaved,
    DeleteGates,
    GateRaised,
    OpenGate,
    RaiseGate,
    RefuseWish,
    WatchAnswers,
    WishMade,
)
from llutil.rendezvous.protocol.gate_part import GatePart, OwnWish
from llutil.rendezvous.protocol.gate_records import Gate, GateAnswer, Wish, in_order
from llutil.rendezvous.protocol.growth_steps import note_growth_gate
from llutil.rendezvous.protocol.instructions import Create
from llutil.rendezvous.protocol.record_base import Stage
from llutil.rendezvous.protocol.records import Record
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["apply_gates", "begin_gates", "drop_heard_wishes", "note_gate_instruction", "note_own"]

_NO_ROUND = Stage(0, 0)


def apply_gates(
    state: State, seen: WishMade | GateRaised | CheckpointSaved | AnswersSeen, now: float
) -> None:
    """Apply what the agent says, or what the watch of the answers shows."""
    part = state.gates
    match seen:
        case WishMade():
            _make_wish(state, seen, now)
        case GateRaised(stage=stage, number=number):
            if stage == part.stage and number == part.raised and part.holds:
                part.answer = GateAnswer(
                    generation=stage.generation,
                    round=stage.round,
                    number=number,
                    node=state.node,
                    furthest=seen.furthest,
                    refusal=seen.refusal,
                )
        case CheckpointSaved(stage=stage, number=number, failure=failure):
            if stage == part.stage and failure:
                part.unsaved = seen
            elif stage == part.stage:
                part.saved = max(part.saved, number)
        case AnswersSeen(stage=stage, number=number, answers=answers):
            if part.watched == (stage, number):
                part.note_answers(answers)


def _make_wish(state: State, made: WishMade, now: float) -> None:
    part = state.gates
    in_round = state.workers in (WorkersState.RUNNING, WorkersState.ENDED) and state.own_round
    stage = (part.stage if in_round else None) or _NO_ROUND
    part.made += 1
    wish = Wish(
        generation=stage.generation,
        round=stage.round,
        node=state.node,
        number=part.made,
        kinds=in_order(made.kinds),
        preempted=made.preempted,
        why=made.why,
    )
    part.wishes = (*part.wishes, OwnWish(wish, now))


def begin_gates(state: State, stage: Stage) -> None:
    """This node starts workers in the round ``stage``. What was wished before is answered yet."""
    state.gates = GatePart(stage=stage, wishes=state.gates.wishes)


def drop_heard_wishes(state: State) -> None:
    """Drop the wishes that are in a gate: its decision answers them."""
    part = state.gates
    if not part.wishes or part.stage is None:
        return
    gate = state.log.gates.of(part.stage).gate
    if gate is not None:
        part.wishes = tuple(
            own
            for own in part.wishes
            if own.wish.stage != part.stage or not gate.has_heard(own.wish)
        )


def note_own(state: State, record: Record) -> None:
    """``record`` of this node is in the ledger."""
    part = state.gates
    match record:
        case Wish(number=number) if record.stage == part.stage:
            part.written = max(part.written, number)
        case GateAnswer(number=number) if record.stage == part.stage:
            part.answered = max(part.answered, number)
        case _:
            pass


def note_gate_instruction(
    state: State,
    instruction: Create | RaiseGate | OpenGate | RefuseWish | WatchAnswers | DeleteGates,
    now: float,
) -> None:
    """Note that the driver is given ``instruction`` at ``now``."""
    part = state.gates
    match instruction:
        case RaiseGate(gate=gate):
            part.raised, part.raised_at, part.answer = gate.number, now, None
        case OpenGate(number=number, resumed=resumed):
            part.opened = max(part.opened, number)
            part.raised = max(part.raised, number)
            part.resumed = max(part.resumed, resumed)
        case RefuseWish(wish=wish):
            part.wishes = tuple(own for own in part.wishes if own.wish is not wish)
        case WatchAnswers(stage=stage, number=number):
            part.watch(stage, number)
        case DeleteGates(stage=stage, number=number, heard=heard):
            part.cleaned = (stage, number)
            part.forget_watch()
            state.reports.forget_wishes(heard)
        case Create(records=(Gate() as gate, *_)) if part.sent != (gate.stage, gate.number):
            part.sent, part.sent_at = (gate.stage, gate.number), now
            note_growth_gate(state, gate, now)
        case Create():
            pass
