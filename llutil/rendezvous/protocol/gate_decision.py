"""Decides what becomes of an open gate. Only the leader asks.

The greatest step that anybody has begun is one that nobody has finished, and from the answer on
nobody begins another one. So every rank can do there what was wished, unless its node was cut off
meanwhile. These choices are made:

* An earlier decision stays: the step is never less than the last one of the round. So a rank that
  has fallen far behind meets the decisions in their order.
* A member that has reported its end does not answer. Its ranks are gone, so no checkpoint can
  become complete: that is left out.
* A decision for a step comes within ``gate_timeout`` of the gate, or never. So a node knows after
  some time that none will come, and lets its ranks pass.
* A gate of an earlier leader is cancelled: nobody knows how old it is.

A decision here is a function of its arguments. This module may import nothing but the standard
library and the room's values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from llutil.rendezvous.protocol.gate_history import GateHistory
from llutil.rendezvous.protocol.gate_records import (
    Gate,
    GateAnswer,
    GateDecision,
    Wish,
    WishKind,
    merged,
)
from llutil.rendezvous.protocol.presence import named
from llutil.rendezvous.protocol.record_base import Stage
from llutil.rendezvous.protocol.seal_decision import NotYet

__all__ = ["GateInput", "decide_at_once", "decide_gate", "gate_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInput:
    """What the leader ``me`` knows while ``gate`` is open.

    ``nodes`` are the round's members, ``ended`` those that have reported how their workers ended.
    ``history`` is what the log says of the round's gates. ``since``: when this node began to write
    the gate; None if another node wrote it. ``timeout``: how long it waits for answers.
    """

    me: str
    gate: Gate
    nodes: frozenset[str]
    answers: Mapping[str, GateAnswer]
    ended: AbstractSet[str]
    history: GateHistory
    since: float | None
    timeout: float


def gate_for(
    me: str,
    stage: Stage,
    history: GateHistory,
    wishes: Iterable[Wish],
    for_growth: Wish | None = None,
) -> Gate | None:
    """The gate for those of ``wishes`` that no earlier gate of the round has heard, and for what
    the leader itself wants; None if there is nothing.
    """
    last = history.gate
    new = [wish for wish in wishes if last is None or not last.has_heard(wish)]
    wish = merged([*new, for_growth] if for_growth else new)
    if wish is None:
        return None
    heard = dict(last.heard) if last else {}
    for one in new:
        heard[one.node] = max(one.number, heard.get(one.node, 0))
    return Gate(
        generation=stage.generation,
        round=stage.round,
        number=last.number + 1 if last else 1,
        kinds=wish.kinds,
        by=me,
        heard=tuple(sorted(heard.items())),
        preempted=wish.preempted,
        why=wish.why,
    )


def decide_at_once(gate: Gate, history: GateHistory) -> GateDecision:
    """The decision on a gate that needs no step."""
    return _decision(gate, history, gate.by, (), None, gate.why)


def decide_gate(known: GateInput, now: float) -> GateDecision | NotYet:
    """What becomes of the gate at ``now``; or until when to wait for answers."""
    gate, missing = known.gate, known.nodes.difference(known.answers).difference(known.ended)
    if known.since is None:
        return _nothing(known, f"{gate.by}, which asked for the nodes' steps, leads no more")
    for node, answer in known.answers.items():
        if answer.refusal:
            return _nothing(known, f"{node}: {answer.refusal}")
    until = known.since + known.timeout
    if now >= until:
        who = named(missing) if missing else "a node or this leader"
        return _nothing(known, f"{who} did not answer within {known.timeout:g} s")
    if missing:
        wanted = ", ".join(gate.kinds)
        return NotYet(until, f"{wanted}: {named(missing)} has yet to say how far its ranks are")
    return _for_step(known)


def _for_step(known: GateInput) -> GateDecision:
    gate, ended = known.gate, known.ended & known.nodes
    steps = [one.furthest for one in known.answers.values() if one.furthest is not None]
    if not steps:
        return _nothing(known, "no rank calls step")
    kinds = tuple(kind for kind in gate.kinds if kind.needs_step)
    why = gate.why
    if ended and WishKind.CHECKPOINT in kinds:
        kinds = tuple(kind for kind in kinds if kind is not WishKind.CHECKPOINT)
        left_out = f"no checkpoint, since the ranks of {named(ended)} have ended"
        why = f"{why}; {left_out}" if why else left_out
    if not kinds:
        return _nothing(known, why)
    agreed = known.history.agreement
    earlier = agreed.step if agreed and agreed.step is not None else 0
    return _decision(gate, known.history, known.me, kinds, max(*steps, earlier), why)


def _nothing(known: GateInput, why: str) -> GateDecision:
    return _decision(known.gate, known.history, known.me, (), None, why)


def _decision(
    gate: Gate,
    history: GateHistory,
    by: str,
    kinds: tuple[WishKind, ...],
    step: int | None,
    why: str,
) -> GateDecision:
    last = history.decision
    resumed, debugged = (last.resumed, last.debugged) if last else (0, False)
    stacks = last.stacks if last else 0
    if WishKind.DEBUGGER_START in gate.kinds or WishKind.DEBUGGER_END in gate.kinds:
        debugged = WishKind.DEBUGGER_START in gate.kinds
    return GateDecision(
        generation=gate.generation,
        round=gate.round,
        number=gate.number,
        kinds=kinds,
        by=by,
        step=step,
        resumed=gate.number if WishKind.RESUME in gate.kinds else resumed,
        debugged=debugged,
        preempted=gate.preempted and bool(kinds),
        stacks=gate.number if WishKind.STACKS in gate.kinds else stacks,
        why=why,
    )
