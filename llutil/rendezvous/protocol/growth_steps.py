"""What a leader does before it lets somebody new into its round: it asks all ranks for a checkpoint
first, so that the restart costs no work.

That is a gate like any other, and the wishes that are open go with it. The leader's own agent says
when the checkpoint is committed (``CheckpointSaved``): a rank leaves ``worker.checkpoint`` only
then. All of it takes ``growth_timeout`` at most, counted from the moment at which the verdict could
have been written; whatever goes wrong, the verdict comes, and says that nothing was saved. These
choices are made:

* A round ends otherwise as always. Who failed, was lost, or has succeeded is not held up.
* Where the ranks are about to stop, there may be nothing left to let anybody into. So the verdict
  waits until they have stopped, or until the time is over.
* If the newcomer leaves, nothing happens to the round. The next one is asked for again, but not
  before ``growth_pause`` has passed since the last gate, so that nodes which come and go do not
  keep ranks saving. A checkpoint that is still under way then serves the next one.
* A leader that comes later begins anew. In fact it lets nobody in: who sealed the round, and led it
  before, was lost, or had reported its end.

This module may import nothing but the standard library and the room's values and decisions.
"""

from __future__ import annotations

from llutil.rendezvous.protocol.gate_records import Gate, Wish, WishKind
from llutil.rendezvous.protocol.growth_part import GrowthPart
from llutil.rendezvous.protocol.presence import named
from llutil.rendezvous.protocol.record_base import Stage
from llutil.rendezvous.protocol.records import Assignment
from llutil.rendezvous.protocol.seal_decision import NotYet
from llutil.rendezvous.protocol.state import State, WorkersState
from llutil.rendezvous.protocol.verdict_decision import newcomers

__all__ = ["follow_growth", "growth_hold", "growth_wish", "note_growth_gate"]


def follow_growth(state: State, now: float) -> None:
    """Update ``state.growth`` after an observation made at ``now``."""
    if not state.parameters.saves_before_growth:
        return
    running = state.log.running if state.leads else None
    stage = running.stage if running else None
    if state.growth.stage != stage:
        state.growth = GrowthPart(stage)
    if running is None:
        return
    part = state.growth
    part.became = part.became or _became(state, running.stage)
    agreed = state.log.gates.of(running.stage).agreement
    part.stops = part.stops or (agreed is not None and WishKind.STOP in agreed.kinds)
    if not _new(state, running):
        part.since = None
    elif part.since is None:
        part.since = now
        if part.became:  # that one was for others, who have left
            part.number, part.became = 0, ""


def note_growth_gate(state: State, gate: Gate, now: float) -> None:
    """Note that this leader begins to write ``gate`` at ``now``."""
    part = state.growth
    wanted = part.since is not None and not part.number
    if wanted and WishKind.CHECKPOINT in gate.kinds:
        part.number, part.asked_at = gate.number, now


def growth_wish(state: State, running: Assignment, now: float) -> Wish | None:
    """What this leader wishes of the round's ranks before it lets somebody in; None if nothing."""
    part = state.growth
    if part.since is None or part.number or _ends_soon(state, running.stage):
        return None
    if now < part.asked_at + state.parameters.growth_pause:
        return None
    generation, round_ = running.stage
    why = f"before {named(_new(state, running))} can come in"
    return Wish(
        generation=generation,
        round=round_,
        node=state.node,
        number=0,
        kinds=(WishKind.CHECKPOINT,),
        preempted=True,
        why=why,
    )


def growth_hold(state: State, now: float) -> NotYet | str:
    """Until when the verdict that lets somebody in has to wait; or what it says of the checkpoint
    that came before, if there is anything to say.
    """
    part, rules = state.growth, state.parameters
    if part.since is None or part.stage is None:
        return ""
    if state.workers is not WorkersState.RUNNING:
        return "nothing was saved: no workers of the leader run"
    until = part.since + rules.growth_timeout
    if now >= until:
        return part.became or f"nothing was saved within {rules.growth_timeout:g} s"
    if _ends_soon(state, part.stage):
        return NotYet(until, "somebody new is there, but the ranks are about to stop")
    if part.became:
        return part.became
    if part.number:
        return NotYet(until, f"somebody new comes in once the ranks have saved at {part.number}")
    ask_at = part.asked_at + rules.growth_pause
    return NotYet(
        min(until, ask_at) if now < ask_at else until,
        "somebody new comes in once the ranks have saved",
    )


def _new(state: State, running: Assignment) -> list[str]:
    return newcomers(running, state.presence, state.reports, state.parameters.max_nodes)


def _ends_soon(state: State, stage: Stage) -> bool:
    """Whether the round's ranks are asked to stop at a step, or will be."""
    gate = state.log.gates.of(stage).open
    return state.growth.stops or (gate is not None and WishKind.STOP in gate.kinds)


def _became(state: State, stage: Stage) -> str:
    """What has become of the checkpoint that this leader asked for."""
    number, gates, history = state.growth.number, state.gates, state.log.gates.of(stage)
    if not number or gates.stage != stage:
        return ""
    if gates.saved >= number:
        agreed = history.agreement
        where = f" at step {agreed.step}" if agreed and agreed.number == number else ""
        return f"a checkpoint was saved before{where}"
    if gates.unsaved and gates.unsaved.number == number:
        return f"nothing was saved: {gates.unsaved.failure}"
    decided = history.decision
    if decided and decided.number == number and WishKind.CHECKPOINT not in decided.kinds:
        return f"nothing was saved: {decided.why}"
    return ""
