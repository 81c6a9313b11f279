"""A thousand bad days in virtual time, and after each step of each of them: what must hold, does.

A failure prints the seed of its day; ``python -m tests.simulation SEED`` tells that day's story.
``LLUTIL_SIMULATION_SEED`` chooses where the seeds begin, ``LLUTIL_SIMULATION_DAYS`` how many there
are.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.gate_records import GateDecision
from llutil.rendezvous.protocol.records import Cause, Report, Verdict
from tests.simulation.growth import has_growth
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.properties import Broken
from tests.simulation.schedules import play
from tests.simulation.wishes import has_wishes

_FIRST = int(os.environ.get("LLUTIL_SIMULATION_SEED", "0"))
_DAYS = int(os.environ.get("LLUTIL_SIMULATION_DAYS", "1000"))


def test_the_properties_hold_on_every_day() -> None:
    print(f"seeds {_FIRST} to {_FIRST + _DAYS - 1}")
    seen: Counter[str] = Counter()
    acts = 0
    for seed in range(_FIRST, _FIRST + _DAYS):
        try:
            world = play(seed)
        except Broken as broken:
            pytest.fail(f"seed {seed}: {broken}\nits story: python -m tests.simulation {seed}")
        seen.update(verdict.cause for verdict, _ in world.properties.verdicts.values())
        seen.update(_called(host.end) for host in world.hosts if host.end is not None)
        seen.update(_becomes(decision) for decision in world.properties.gates.decisions.values())
        seen.update(_grows(verdict) for verdict, _ in world.properties.verdicts.values())
        acts += world.steps.acts
    print(dict(seen), f"{acts} times a rank did what was wished")
    if _DAYS >= 1000:  # the days are bad enough: everything that can happen does
        assert set(Cause) <= seen.keys()
        assert {"FinishedWell", "Late", "Failed", "Stopped", "Left", "GaveUp"} <= seen.keys()
        assert {"FinishedWell unrecorded", "GaveUp succeeded", "GaveUp failed"} <= seen.keys()
        assert {"GaveUp gone", "GaveUp gone succeeded", "GaveUp gone failed"} <= seen.keys()
        assert {f"all do {kind}" for kind in ("checkpoint", "stop", "pause")} <= seen.keys()
        assert {"all resume", "nothing is done"} <= seen.keys()
        assert {"grown, and saved", "grown, and not saved", "grown"} <= seen.keys()
        assert acts > _DAYS / 10


def _becomes(decision: GateDecision) -> str:
    if decision.kinds:
        return f"all do {decision.kinds[0]}"
    return "all resume" if decision.resumed == decision.number else "nothing is done"


def _grows(verdict: Verdict) -> str:
    if verdict.cause is not Cause.GROWN:
        return "other ends"
    saved = {"a checkpoint was saved": ", and saved", "nothing was saved": ", and not saved"}
    return next((f"grown{says}" for text, says in saved.items() if text in verdict.why), "grown")


def _called(end: do.End) -> str:
    name = type(end).__name__
    match end:
        case do.FinishedWell(recorded=False):
            return f"{name} unrecorded"
        case do.GaveUp(gone=True, outcome=Report(say=say)):
            return f"{name} gone {say}"
        case do.GaveUp(gone=True):
            return f"{name} gone"
        case do.GaveUp(outcome=Report(say=say)):
            return f"{name} {say}"
        case _:
            return name


_RARE = {
    "a node holds its ranks until it hears": 1320,
    "a store is thought to be punctual": 1300,
    "ranks that are to stop are started again": 760,
    "a suspended node raises gates": 320,
    "a member keeps its wishes to itself": 260,
    "a resume waits for a step": 260,
    "ranks save for each newcomer": 180,
    "only the newest decision counts": 140,
    "only a loss after the seal counts": 140,
}
"""The mutants that hardly any day shows: the first day to look at, shortly before one that does."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_the_properties_notice(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.install(monkeypatch)
    wanted = has_growth if mutant.growth else has_wishes if mutant.wishes else lambda _: True
    first = _RARE.get(mutant.name, 0)
    seeds = (seed for seed in range(first, first + 2000) if wanted(seed))
    days = (_broken_on(seed, mutant) for seed in seeds)
    noticed = next(filter(None, days), None)
    assert noticed is not None, f"nobody noticed in 2000 days that {mutant.name}"
    assert noticed.name in mutant.noticed_by


def _broken_on(seed: int, mutant: Mutant) -> Broken | None:
    try:
        play(seed, disorder=mutant.disorder, wishes=mutant.wishes, growth=mutant.growth)
    except Broken as broken:
        print(f"seed {seed}: {broken}")
        return broken
    return None


_ONCE_BROKEN = {
    "the leader is suspended, and the network is back before its lease is renewed": 103436,
    "a leader that all others wait for is suspended in the same way": 501608,
}
"""Days on which a property did not hold, by what is special about them."""


@pytest.mark.parametrize("seed", _ONCE_BROKEN.values(), ids=[*_ONCE_BROKEN])
def test_the_properties_hold_on_a_day_that_once_broke_one(seed: int) -> None:
    play(seed, disorder=False, wishes=False, growth=False)


def test_the_rare_mutants_are_among_them() -> None:
    assert _RARE.keys() <= {mutant.name for mutant in MUTANTS}


def test_a_day_is_the_same_each_time() -> None:
    stories: list[list[str]] = [[], []]
    for story in stories:
        play(77, trace=story)
    assert stories[0] == stories[1]
    assert len(stories[0]) > 50
