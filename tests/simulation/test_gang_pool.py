"""Gangs in small pools, in virtual time: whatever starts slowly, no try is used up; slots are given
back; everybody comes to an end; and gangs that compete for slots all get them.

A failure prints the seed of its day.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider.gang.reschedule import (
    GiveSlotBack,
    RescheduleAt,
    SlotTimeout,
    TimeIsUp,
    slot_timeout,
)
from airflow_provider.gang.siblings import GangView, absent_nodes
from llutil.errors import RendezvousError
from tests.simulation.gang_nodes import Broken, Decisions, Gang
from tests.simulation.gang_pool import World

Start = Callable[[random.Random], float]
_DAY = 86400.0


def starts(rng: random.Random) -> Start:
    """How long starts take on one day: seconds, or now and then minutes."""
    longest, share = rng.choice((10.0, 30.0, 90.0, 300.0)), rng.choice((0.1, 0.5, 1.0))
    return lambda rng: rng.uniform(2, longest if rng.random() < share else 10)


def day(seed: int, decisions: Decisions | None = None, *, losses: bool = False) -> World:
    """Live through the day of ``seed``."""
    rng = random.Random(seed)
    count = rng.choice((1, 1, 2, 2, 3))
    sizes = [rng.choice((2, 2, 3, 4, 6)) for _ in range(count)]
    enough = max(sizes) + rng.choice((0, 0, 1, 4))
    world = World(rng, enough, starts(rng), decisions, by_run=rng.random() < 0.5)
    if rng.random() < 0.4:  # too few slots for anybody, at first
        world.slots = max(1, min(sizes) - rng.choice((1, 2)))
        world.plan(rng.uniform(10, 4000), world.widen, enough)
    for name, size in zip("abc", sizes, strict=False):
        gang = Gang(
            f"{seed} {name}",
            size,
            min_nodes=rng.choice((size, size, max(2, size - 1))),
            timeout=rng.choice((30.0, 60.0, 300.0, 900.0)),
            server=rng.choice((None, None, 0)),
            duration=rng.choice((10.0, 1000.0)),
        )
        world.add(gang, at=rng.choice((0.0, rng.uniform(0, 900))), retries=rng.choice((0, 1)))
    if losses:
        for _ in range(rng.choice((1, 2, 3))):
            world.plan(rng.uniform(0, 3000), lambda: world.lose(rng.choice(world.nodes)))
    try:
        world.play(until=3 * _DAY)
    except Broken as broken:
        raise Broken(f"{broken}; seed {seed}") from broken
    return world


def days(seeds: range, decisions: Decisions | None = None) -> list[World]:
    return [day(seed, decisions) for seed in seeds]


def test_no_slow_start_uses_up_a_try_or_fails_a_node() -> None:
    nodes = [node for world in days(range(150)) for node in world.nodes]
    assert {node.state for node in nodes} == {"success"}
    assert sum(node.reschedules for node in nodes) > 500  # the days are bad enough


def test_nobody_waits_for_ever_for_a_sibling_that_is_lost() -> None:
    ends: set[str | None] = set()
    for seed in range(150):
        world = day(seed, losses=True)
        for gang in world.gangs:
            states = {node.state for node in gang.nodes}
            ends |= states
            failed = sum(node.state == "failed" for node in gang.nodes)
            # One that has failed for good brings down the others, unless they are enough.
            assert failed in {0, gang.size} or gang.size - failed >= gang.min_nodes
    assert ends == {"success", "failed"}


def compete(
    seed: int, count: int, size: int, timeout: float, decisions: Decisions | None = None
) -> None:
    """Live until all of so many gangs have run, in a pool that has room for one of them."""
    rng = random.Random(seed)
    world = World(rng, size, lambda rng: rng.uniform(2, 20), decisions, by_run=False)
    for number in range(count):
        world.add(Gang(f"{seed} {number}", size, size, timeout))
    world.play(until=60 * timeout)


@pytest.mark.parametrize(("count", "size"), [(2, 2), (2, 8), (4, 4), (6, 2)])
@pytest.mark.parametrize("timeout", [60.0, 900.0])
def test_gangs_that_need_each_others_slots_all_get_them(
    count: int, size: int, timeout: float
) -> None:
    for seed in range(5):
        compete(seed, count, size, timeout)


def test_a_gang_whose_pool_can_never_hold_it_ends_with_its_own_time() -> None:
    world = World(random.Random(0), 1, lambda _: 5.0)
    world.add(Gang("a", 2, 2, 60.0, gang_timeout=3600.0))
    world.play(until=2 * 3600.0)
    assert {node.state for node in world.nodes} == {"failed"}


def who_runs_is_there(view: GangView, error: RendezvousError) -> GiveSlotBack | None:
    absent = absent_nodes(view)
    return None if absent is None else GiveSlotBack(absent)


def each_on_its_own(*, now: dt.datetime, timeout: float, **_: Any) -> RescheduleAt:
    away = random.Random(now.timestamp()).uniform(10, max(10.0, timeout))
    return RescheduleAt(now + dt.timedelta(seconds=away))


def ten_times_as_long(timeout: float, draw: float) -> SlotTimeout:
    asked = slot_timeout(timeout, draw)
    return SlotTimeout(absent=10 * asked.absent, started=10 * asked.started)


def never_again(**_: Any) -> TimeIsUp:
    return TimeIsUp()


def for_ever(*_: Any) -> SlotTimeout:
    return SlotTimeout(absent=1e9, started=1e9)


@pytest.mark.parametrize(
    ("decisions", "noticed"),
    [
        (Decisions(after_failed_rendezvous=who_runs_is_there), "no slow start uses up a try"),
        (Decisions(slot_timeout=ten_times_as_long), "a slot is given back in time"),
        (Decisions(next_attempt=never_again), "no slow start fails a node"),
        (Decisions(slot_timeout=for_ever), "everybody comes to an end"),
    ],
)
def test_the_properties_notice(decisions: Decisions, noticed: str) -> None:
    with pytest.raises(Broken, match=noticed):
        days(range(50), decisions)


def test_nodes_that_come_back_each_on_their_own_take_the_slots_from_each_other_for_ever() -> None:
    with pytest.raises(Broken, match="everybody comes to an end"):
        compete(1, 2, 8, 60.0, Decisions(next_attempt=each_on_its_own))
