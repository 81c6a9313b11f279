"""What a leader does for newcomers, broken on purpose; a part of ``mutants``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest import MonkeyPatch  # noqa: PT013 - a type, and nothing else of pytest

from llutil.rendezvous.protocol import apply_gates, gate_steps, growth_steps, leader_decisions
from llutil.rendezvous.protocol.observations import CheckpointSaved
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Assignment
from llutil.rendezvous.protocol.seal_decision import NotYet
from llutil.rendezvous.protocol.state import State

__all__ = ["GROWTH_MUTANTS"]


def newcomers_are_let_in_at_once(patch: MonkeyPatch) -> None:
    patch.setattr(leader_decisions, "growth_hold", lambda state, now: "")


def a_checkpoint_that_was_decided_on_counts_as_saved(patch: MonkeyPatch) -> None:
    real = growth_steps._became

    def became(state: State, stage: Any) -> str:
        decided = state.log.gates.of(stage).agreement
        number = state.growth.number
        if number and decided and decided.number == number:
            return f"a checkpoint was saved before at step {decided.step}"
        return real(state, stage)

    patch.setattr(growth_steps, "_became", became)


def a_checkpoint_that_failed_counts_as_saved(patch: MonkeyPatch) -> None:
    real = apply_gates.apply_gates

    def apply(state: State, seen: Any, now: float) -> None:
        real(state, replace(seen, failure="") if isinstance(seen, CheckpointSaved) else seen, now)

    patch.setattr("llutil.rendezvous.protocol.apply_observation.apply_gates", apply)


def newcomers_wait_until_the_ranks_have_saved(patch: MonkeyPatch) -> None:
    real = growth_steps.growth_hold

    def hold(state: State, now: float) -> NotYet | str:
        since = state.growth.since
        try:
            state.growth.since = None if since is None else now
            return real(state, now)
        finally:
            state.growth.since = since

    patch.setattr(leader_decisions, "growth_hold", hold)


def newcomers_wait_as_long_as_they_may(patch: MonkeyPatch) -> None:
    real = growth_steps.growth_hold

    def hold(state: State, now: float) -> NotYet | str:
        found, since = real(state, now), state.growth.since
        until = (since or 0.0) + state.parameters.growth_timeout
        return NotYet(until, "") if since is not None and now < until else found

    patch.setattr(leader_decisions, "growth_hold", hold)


def nobody_is_asked_to_save(patch: MonkeyPatch) -> None:
    patch.setattr(gate_steps, "growth_wish", lambda *_: None)


def ranks_save_for_each_newcomer(patch: MonkeyPatch) -> None:
    patch.setattr(ProtocolParameters, "growth_pause", 0.0)


def ranks_that_are_to_stop_are_started_again(patch: MonkeyPatch) -> None:
    patch.setattr(growth_steps, "_ends_soon", lambda *_: False)


def a_checkpoint_for_newcomers_comes_before_a_verdict(patch: MonkeyPatch) -> None:
    real = leader_decisions._decide_running_round

    def decide(state: State, running: Assignment, now: float) -> Any:
        hold = growth_steps.growth_hold(state, now)
        if isinstance(hold, NotYet) and not state.reports.all_succeeded:
            return hold
        return real(state, running, now)

    patch.setattr(leader_decisions, "_decide_running_round", decide)


GROWTH_MUTANTS = (
    (newcomers_are_let_in_at_once, ("true growth",)),
    (a_checkpoint_that_was_decided_on_counts_as_saved, ("true growth",)),
    (a_checkpoint_that_failed_counts_as_saved, ("true growth",)),
    (newcomers_wait_until_the_ranks_have_saved, ("newcomers get in",)),
    (newcomers_wait_as_long_as_they_may, ("soon after the save",)),
    (nobody_is_asked_to_save, ("calm growth",)),
    (ranks_save_for_each_newcomer, ("asked seldom",)),
    (ranks_that_are_to_stop_are_started_again, ("stops count",)),
    (
        a_checkpoint_for_newcomers_comes_before_a_verdict,
        ("failures end rounds", "lost members end rounds"),
    ),
)
"""Each with the properties of which one must notice."""
