"""What a node does next so that ranks agree on a step: as a member of a round, and as its leader.

Nothing here ends a round or holds up a verdict: the leader comes here only when it has nothing to
decide on its round. This module may import nothing but the standard library and the room's values
and decisions.
"""

from __future__ import annotations

from llutil.rendezvous.protocol.gate_decision import (
    GateInput,
    decide_at_once,
    decide_gate,
    gate_for,
)
from llutil.rendezvous.protocol.gate_history import GateHistory
from llutil.rendezvous.protocol.gate_messages import (
    DeleteGates,
    OpenGate,
    RaiseGate,
    RefuseWish,
    WatchAnswers,
)
from llutil.rendezvous.protocol.gate_part import OwnWish
from llutil.rendezvous.protocol.gate_records import Gate, GateDecision
from llutil.rendezvous.protocol.growth_steps import growth_wish
from llutil.rendezvous.protocol.instructions import Create
from llutil.rendezvous.protocol.record_base import Stage
from llutil.rendezvous.protocol.records import Assignment
from llutil.rendezvous.protocol.seal_decision import NotYet
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["gate_deadline", "gate_instruction", "gate_request", "leader_gate_step"]

_FOREVER = float("inf")


def gate_deadline(state: State) -> float:
    """When the clock alone changes what this node does about gates."""
    part, limit = state.gates, state.parameters.gate_limit
    held = part.holds and _own_stage(state) == part.stage
    held_until = part.raised_at + limit if held else _FOREVER
    return min([held_until, *(own.since + limit for own in part.wishes)])


def gate_instruction(state: State, now: float) -> RaiseGate | OpenGate | RefuseWish | None:
    """The next instruction about gates to this node's agent; it needs no answer of the ledger."""
    own_round = _own_round(state)
    for own in state.gates.wishes:
        if refusal := _refusal(state, own, own_round, now):
            return RefuseWish(own.wish, refusal)
    stage = _own_stage(state)
    if stage is None:
        return None
    history = state.log.gates.of(stage)
    if opened := _opened(state, stage, history, now):
        return opened
    gate, part = history.open, state.gates
    away = not state.joined or state.suspended(now) or bool(state.ledger_gone)
    if gate is None or gate.number <= part.raised or part.holds or away:
        return None
    return RaiseGate(gate, f"{', '.join(gate.kinds)}: {gate.why}")


def _own_stage(state: State) -> Stage | None:
    """The round in which this node's workers run."""
    running = state.workers is WorkersState.RUNNING and state.own_round
    return running.stage if running else None


def _own_round(state: State) -> Stage | None:
    """The round in which this node's workers run, or have ended."""
    in_round = state.workers in (WorkersState.RUNNING, WorkersState.ENDED) and state.own_round
    return in_round.stage if in_round else None


def _refusal(state: State, own: OwnWish, stage: Stage | None, now: float) -> str:
    if own.wish.stage != stage:
        return "no workers run here, or their round is over"
    if state.ledger_gone:
        return f"the ledger has gone for good: {state.ledger_gone}"
    limit = state.parameters.gate_limit
    if now >= own.since + limit:
        return f"the leader did not hear of it within {limit:g} s"
    return ""


def _opened(state: State, stage: Stage, history: GateHistory, now: float) -> OpenGate | None:
    part, agreed, newest = state.gates, history.agreement, history.decision
    if part.holds and agreed and agreed.number == part.raised:
        return _open(agreed, agreed.kinds, agreed.step)
    if newest and (newest.number > part.opened or newest.resumed > part.resumed):
        return _open(newest, (), None)
    if state.ledger_gone and part.raised and part.resumed <= part.raised:
        why = f"nobody can decide, or resume, any more: {state.ledger_gone}"
        return _open_undecided(stage, part.raised, part.raised + 1, why, debugged=False)
    if not part.holds:
        return None
    limit = state.parameters.gate_limit
    if now >= part.raised_at + limit:
        why = f"no decision came within {limit:g} s: the ledger or the leader is away"
        debugged = newest is not None and newest.debugged
        return _open_undecided(stage, part.raised, part.resumed, why, debugged=debugged)
    return None


def _open_undecided(
    stage: Stage, number: int, resumed: int, why: str, *, debugged: bool
) -> OpenGate:
    return OpenGate(stage, number, (), None, resumed, debugged, preempted=False, why=why)


def _open(decision: GateDecision, kinds: tuple[str, ...], step: int | None) -> OpenGate:
    return OpenGate(
        decision.stage,
        decision.number,
        kinds,  # type: ignore[arg-type]  # a WishKind is a text
        step,
        decision.resumed,
        decision.debugged,
        preempted=decision.preempted,
        why=decision.why,
        stacks=decision.stacks,
    )


def gate_request(state: State) -> Create | None:
    """The next record that a member writes: its answer, or a wish, which it may also have after its
    workers have ended. Call it only if joined and not suspended. The leader knows its own.
    """
    stage, part, ticket = _own_round(state), state.gates, state.ticket + 1
    if stage is None or state.leads or not (state.log.running and state.log.running.stage == stage):
        return None
    answer = part.answer
    holds = part.holds and _own_stage(state) == stage
    if answer and holds and answer.number == part.raised > part.answered:
        return Create(ticket, (answer,), f"the gate {answer.number} is raised here")
    for own in part.wishes:
        if own.wish.number > part.written:
            return Create(ticket, (own.wish,), f"{', '.join(own.wish.kinds)}: {own.wish.why}")
    return None


def leader_gate_step(
    state: State, running: Assignment, now: float
) -> Create | WatchAnswers | DeleteGates | NotYet | None:
    """The leader's next step about the gates of the round ``running``; None if nobody wishes
    anything.
    """
    stage, history = running.stage, state.log.gates.of(running.stage)
    if gate := history.open:
        return _decide(state, running, gate, history, now)
    decided = history.decision
    if decided and state.gates.cleaned != (stage, decided.number):
        kept = history.agreement.number if history.agreement else 0
        heard = history.gate.heard if history.gate else ()
        return DeleteGates(stage, decided.number, kept, heard, f"gate {decided.number} is decided")
    own = [one.wish for one in state.gates.wishes if one.wish.stage == stage]
    for_growth = growth_wish(state, running, now)
    wished = gate_for(state.node, stage, history, [*state.reports.wishes, *own], for_growth)
    if wished is None:
        return None
    records = (wished,) if wished.needs_step else (wished, decide_at_once(wished, history))
    why = f"{', '.join(wished.kinds)} is wished: {wished.why}"
    return Create(state.ticket + 1, records, why)


def _decide(
    state: State, running: Assignment, gate: Gate, history: GateHistory, now: float
) -> Create | WatchAnswers | NotYet:
    part, place = state.gates, (running.stage, gate.number)
    mine = gate.by == state.node and part.sent == place
    if mine and part.watched != place:
        return WatchAnswers(running.stage, gate.number, "this node asked for the nodes' steps")
    answers = part.answers if mine else {}
    own = part.answer
    if own and (own.stage, own.number) == place:
        answers = {**answers, own.node: own}
    known = GateInput(
        me=state.node,
        gate=gate,
        nodes=running.node_set,
        answers=answers,
        ended=state.reports.ends.keys(),
        history=history,
        since=part.sent_at if mine else None,
        timeout=state.parameters.gate_timeout,
    )
    decision = decide_gate(known, now)
    if isinstance(decision, NotYet):
        return decision
    what = f"at step {decision.step}" if decision.kinds else "nothing is done"
    return Create(state.ticket + 1, (decision,), f"{', '.join(gate.kinds)}: {what}; {decision.why}")
