"""The plan of a soak is its seed's, and has enough of everything."""

from __future__ import annotations

import itertools
from collections import Counter

from tests.soak import plan
from tests.soak.plan import ALLOWED, LASTING, Kind
from tests.soak.verdict import PLANNED


def test_the_same_seed_makes_the_same_plan_and_another_one_another() -> None:
    assert plan.faults(7, 600, store=True) == plan.faults(7, 600, store=True)
    assert plan.faults(7, 600, store=True) != plan.faults(8, 600, store=True)
    first, again, other = ([*itertools.islice(plan.jobs(seed), 50)] for seed in (7, 7, 8))
    assert first == again != other


def test_a_longer_plan_begins_as_a_shorter_one() -> None:
    short, long = plan.faults(7, 120, store=True), plan.faults(7, 600, store=True)
    assert long[: len(short)] == short


def test_ten_minutes_have_more_than_a_hundred_faults_of_all_kinds_in_time() -> None:
    for seed in range(20):
        found = plan.faults(seed, 600, store=True)
        assert len(found) > 120
        assert {one.kind for one in found} == {*Kind}
        assert all(0 < one.at < 600 for one in found)


def test_a_fault_lasts_as_long_as_its_kind_may() -> None:
    for one in plan.faults(7, 600, store=True):
        shortest, longest = LASTING.get(one.kind, (0.0, 0.0))
        assert shortest <= one.seconds <= longest


def test_without_a_store_no_fault_is_one_of_a_store() -> None:
    kinds = {one.kind for one in plan.faults(7, 600, store=False)}
    assert {*Kind} - kinds == {
        *(Kind.KILL_LEADER, Kind.FREEZE_MEMBER, Kind.CUT_MEMBER, Kind.SLOW_MEMBER),
    }


def test_twenty_jobs_are_of_all_kinds_and_more_than_half_of_them_train() -> None:
    found = [*itertools.islice(plan.jobs(7), 18)]
    assert {one.kind for one in found} == PLANNED.keys()
    assert Counter(one.trains for one in found)[True] == 11
    assert all(PLANNED[one.kind].state == ("success" if one.trains else "failed") for one in found)


def test_no_kind_of_fault_is_an_excuse() -> None:
    assert ALLOWED.keys() == {*Kind}
    assert all(plan.Outcome.AS_PLANNED in outcomes for outcomes in ALLOWED.values())


def test_what_strikes_no_task_and_no_agent_loses_no_value() -> None:
    harmless = {kind for kind, found in ALLOWED.items() if plan.Outcome.VALUES_LOST not in found}
    assert harmless >= {Kind.KILL_RANK, Kind.KILL_GUARDIAN, Kind.KILL_LEADER, Kind.FREEZE_RANK}
    assert harmless >= {Kind.KILL_SCHEDULER, Kind.CUT_MEMBER, Kind.FILL_CHECKPOINTS}
