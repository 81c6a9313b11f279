"""When leases are over, on a clock that the tests set."""

from __future__ import annotations

import math
import random

import pytest

from llutil.ledgers.lease_deadlines import LeaseDeadlines


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def deadlines(clock: _Clock) -> LeaseDeadlines:
    return LeaseDeadlines(clock)


def test_a_lease_is_overdue_from_its_deadline_on(clock: _Clock, deadlines: LeaseDeadlines) -> None:
    deadlines.set("a", 10)
    clock.now += 9
    assert not list(deadlines.take_overdue())
    assert deadlines.seconds_left() == 1
    clock.now += 1
    assert list(deadlines.take_overdue()) == ["a"]
    assert not list(deadlines.take_overdue())


def test_without_leases_there_is_no_deadline(deadlines: LeaseDeadlines) -> None:
    assert deadlines.seconds_left() == math.inf
    deadlines.set("a", 10)
    deadlines.discard("a")
    deadlines.discard("a")
    assert deadlines.seconds_left() == math.inf


def test_leases_are_overdue_in_the_order_of_their_deadlines(
    clock: _Clock, deadlines: LeaseDeadlines
) -> None:
    for lease, ttl in {"long": 30, "short": 10, "renewed": 5, "ended": 1}.items():
        deadlines.set(lease, ttl)
    deadlines.discard("ended")
    clock.now += 4
    deadlines.set("renewed", 20)
    assert deadlines.seconds_left() == 6
    clock.now += 100
    assert list(deadlines.take_overdue()) == ["short", "renewed", "long"]


def test_an_extension_moves_all_deadlines_and_none_back(
    clock: _Clock, deadlines: LeaseDeadlines
) -> None:
    deadlines.set("a", 10)
    deadlines.set("b", 20)
    clock.now += 60
    deadlines.extend(60)
    assert deadlines.seconds_left() == 10
    deadlines.set("a", 5)
    assert deadlines.seconds_left() == 10
    clock.now += 10
    assert list(deadlines.take_overdue()) == ["a"]
    assert deadlines.seconds_left() == 10


@pytest.mark.parametrize("seed", range(20))
def test_it_agrees_with_a_scan(clock: _Clock, deadlines: LeaseDeadlines, seed: int) -> None:
    rng = random.Random(seed)
    plain: dict[str, float] = {}
    for step in range(300):
        lease = rng.choice([*plain, f"new {step}"])
        if rng.random() < 0.7:
            ttl = rng.choice([1, 10, 100])
            deadlines.set(lease, ttl)
            plain[lease] = max(clock.now + ttl, plain.get(lease, 0))
        else:
            deadlines.discard(lease)
            plain.pop(lease, None)
        clock.now += rng.choice([0, 1, 5])
        over = {one for one, deadline in plain.items() if deadline <= clock.now}
        assert set(deadlines.take_overdue()) == over
        plain = {one: deadline for one, deadline in plain.items() if one not in over}
        first = min(plain.values(), default=math.inf)
        assert deadlines.seconds_left() == first - clock.now


def test_discarded_leases_take_no_lasting_memory(deadlines: LeaseDeadlines) -> None:
    deadlines.set("lives", 86400)
    for index in range(1000):
        deadlines.set(f"{index}", 86400)
        deadlines.discard(f"{index}")
    assert len(deadlines._heap) < 50
    assert deadlines.seconds_left() == 86400
