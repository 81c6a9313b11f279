"""The agreement on a step, broken on purpose; a part of ``mutants``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msgspec import structs
from pytest import MonkeyPatch  # noqa: PT013 - a type, and nothing else of pytest

from llutil.rendezvous.protocol import gate_decision, gate_steps, leader_decisions, machine
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.gate_decision import GateInput
from llutil.rendezvous.protocol.gate_history import GateHistory
from llutil.rendezvous.protocol.gate_records import Gate, GateAnswer, GateDecision
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Assignment, Stage
from llutil.rendezvous.protocol.round_reports import RoundReports
from llutil.rendezvous.protocol.seal_decision import NotYet
from llutil.rendezvous.protocol.state import State
from tests.simulation.steps import Page, Steps

__all__ = ["GATE_MUTANTS"]


def _with_input(patch: MonkeyPatch, change: Any) -> None:
    real = gate_decision.decide_gate
    patch.setattr(gate_steps, "decide_gate", lambda known, now: real(change(known), now))


def the_least_step_is_decided_for(patch: MonkeyPatch) -> None:
    def change(known: GateInput) -> GateInput:
        steps = [one.furthest for one in known.answers.values() if one.furthest is not None]
        least = min(steps, default=None)
        answers = {
            node: structs.replace(one, furthest=least) for node, one in known.answers.items()
        }
        return replace(known, answers=answers)

    _with_input(patch, change)


def nobody_is_waited_for(patch: MonkeyPatch) -> None:
    def change(known: GateInput) -> GateInput:
        told = any(one.furthest is not None for one in known.answers.values())
        return replace(known, nodes=frozenset(known.answers)) if told else known

    _with_input(patch, change)


def the_leader_waits_for_ever(patch: MonkeyPatch) -> None:
    _with_input(patch, lambda known: replace(known, timeout=10.0**6))


def a_checkpoint_is_asked_of_ranks_that_have_ended(patch: MonkeyPatch) -> None:
    def change(known: GateInput) -> GateInput:
        return replace(known, nodes=known.nodes.difference(known.ended), ended=frozenset())

    _with_input(patch, change)


def an_agent_answers_before_it_holds_its_ranks(patch: MonkeyPatch) -> None:
    real = Steps._raise

    def raise_(steps: Steps, host: Any, node: str, stage: Stage, number: int) -> None:
        page = steps.pages.get((stage, node))
        real(steps, host, node, stage, number)
        if page is not None and page.newest == number:
            page.newest = number - 1
            steps.world.at(steps.world.now + 0.5, _set_newest, page, number)

    def _set_newest(page: Page, number: int) -> None:
        page.newest = max(page.newest, number)

    patch.setattr(Steps, "_raise", raise_)


def each_node_opens_up_to_a_step_of_its_own(patch: MonkeyPatch) -> None:
    real = gate_steps._open

    def open_(decision: GateDecision, kinds: Any, step: int | None) -> do.OpenGate:
        return real(decision, kinds, None if step is None else step + _count(decision))

    opened: dict[tuple[Stage, int], int] = {}

    def _count(decision: GateDecision) -> int:
        place = (decision.stage, decision.number)
        opened[place] = opened.get(place, -1) + 1
        return opened[place]

    patch.setattr(gate_steps, "_open", open_)


def a_node_holds_its_ranks_until_it_hears(patch: MonkeyPatch) -> None:
    patch.setattr(ProtocolParameters, "gate_limit", property(lambda _: 10.0**6))


def only_the_newest_decision_counts(patch: MonkeyPatch) -> None:
    real = gate_steps._opened

    def opened(state: State, stage: Stage, history: GateHistory, now: float) -> Any:
        newest = history.decision
        if history.agreement is not newest:
            history = replace(history, agreement=None)
        return real(state, stage, history, now)

    patch.setattr(gate_steps, "_opened", opened)


def a_gate_comes_before_a_verdict(patch: MonkeyPatch) -> None:
    real = leader_decisions._decide_running_round

    def decide(state: State, running: Assignment, now: float) -> Any:
        if state.log.gates.of(running.stage).gate or state.reports.wishes:
            return NotYet(float("inf"), "first things first")
        return real(state, running, now)

    patch.setattr(leader_decisions, "_decide_running_round", decide)


def a_wish_is_heard_again_and_again(patch: MonkeyPatch) -> None:
    patch.setattr(Gate, "has_heard", lambda gate, wish: False)


def wishes_that_no_gate_has_heard_are_forgotten_too(patch: MonkeyPatch) -> None:
    real = RoundReports.forget_wishes

    def forget_wishes(reports: RoundReports, heard: Any) -> None:
        real(reports, (*heard, *((wish.node, wish.number) for wish in reports.wishes)))

    patch.setattr(RoundReports, "forget_wishes", forget_wishes)


def a_member_keeps_its_wishes_to_itself(patch: MonkeyPatch) -> None:
    real = gate_steps.gate_request

    def gate_request(state: State) -> Any:
        wanted = real(state)
        return wanted if wanted and isinstance(wanted.records[0], GateAnswer) else None

    patch.setattr(machine, "gate_request", gate_request)


def a_suspended_node_raises_gates(patch: MonkeyPatch) -> None:
    real = gate_steps.gate_instruction

    def gate_instruction(state: State, now: float) -> Any:
        return real(state, state.renewed if state.leased else now)

    patch.setattr(machine, "gate_instruction", gate_instruction)


def a_leader_answers_itself(patch: MonkeyPatch) -> None:
    real = gate_steps.gate_request

    def gate_request(state: State) -> Any:
        state.older_members = ("x", *state.older_members)
        try:
            return real(state)
        finally:
            state.older_members = state.older_members[1:]

    patch.setattr(machine, "gate_request", gate_request)


def a_resume_waits_for_a_step(patch: MonkeyPatch) -> None:
    patch.setattr(Gate, "needs_step", True)


def a_cancelled_gate_ends_the_debugger(patch: MonkeyPatch) -> None:
    def change(known: GateInput) -> GateInput:
        last = known.history.decision
        if last is None or not last.debugged:
            return known
        forgot = structs.replace(last, debugged=False)
        return replace(known, history=replace(known.history, decision=forgot))

    _with_input(patch, change)


def no_node_is_told_of_the_debugger(patch: MonkeyPatch) -> None:
    real = gate_steps._open

    def open_(decision: GateDecision, *arguments: Any) -> do.OpenGate:
        return replace(real(decision, *arguments), debugged=False)

    patch.setattr(gate_steps, "_open", open_)


GATE_MUTANTS = (
    (the_least_step_is_decided_for, ("steps ahead",)),
    (nobody_is_waited_for, ("steps ahead", "decisions reach all")),
    (the_leader_waits_for_ever, ("holds end", "waits end")),
    (a_checkpoint_is_asked_of_ranks_that_have_ended, ("true decisions",)),
    (an_agent_answers_before_it_holds_its_ranks, ("steps ahead",)),
    (each_node_opens_up_to_a_step_of_its_own, ("one step", "steps ahead")),
    (a_node_holds_its_ranks_until_it_hears, ("holds end",)),
    (only_the_newest_decision_counts, ("decisions reach all",)),
    (
        a_gate_comes_before_a_verdict,
        ("failures end rounds", "lost members end rounds", "waits end"),
    ),
    (a_wish_is_heard_again_and_again, ("few requests",)),
    (wishes_that_no_gate_has_heard_are_forgotten_too, ("calm wishes",)),
    (a_member_keeps_its_wishes_to_itself, ("calm wishes",)),
    (a_suspended_node_raises_gates, ("suspended nodes", "waits end")),
    (a_leader_answers_itself, ("few requests",)),
    (a_resume_waits_for_a_step, ("calm wishes", "waits end")),
    (a_cancelled_gate_ends_the_debugger, ("debuggers",)),
    (no_node_is_told_of_the_debugger, ("debuggers",)),
)
"""Each with the properties of which one must notice."""
