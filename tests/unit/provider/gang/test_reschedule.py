"""When a node of a gang gives its slot back and comes again, and what it says of those that are not
there.
"""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider.gang.reschedule import (
    GiveSlotBack,
    KeepSlot,
    RescheduleAt,
    SlotTimeout,
    TimeIsUp,
    after_failed_rendezvous,
    decide_slot,
    next_attempt,
    slot_timeout,
)
from airflow_provider.gang.siblings import GangHopeless, GangView, absent_nodes, list_absent
from airflow_provider.gang.success_note import SuccessNote
from airflow_provider.operators.elastic import ElasticLaunchOperator
from llutil.errors import ConfigError, RendezvousError, RendezvousTimeoutError, ServerLostError

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
DRAWS = st.floats(0, 1)
TIMEOUT = SlotTimeout(absent=50, started=200)


def view(states, least=2, server=None, notes=()):
    return GangView(
        node=0 if server is None else 1,
        nodes=len(states),
        min_nodes=least,
        rerun_token="0@2026",
        states=dict(enumerate(states)),
        notes={note.node: note for note in notes},
        server=server,
    )


@pytest.mark.parametrize(
    ("states", "least", "expected"),
    [
        (["running", "running"], 2, None),
        (["running", "queued"], 2, {1: "queued"}),
        (["running", None], 2, {1: None}),
        (["running", "up_for_retry"], 2, {1: "up_for_retry"}),
        (["running", "restarting"], 2, None),
        (["running", "queued"], 1, None),
        (["running", "running", "queued", "failed"], 2, None),
        (["running", "running", "queued", "failed"], 3, {2: "queued", 3: "failed"}),
        # What Airflow says of the node itself does not count: it is here.
        (["queued", "running"], 2, None),
    ],
)
def test_nodes_are_missing_only_if_too_few_are_there(states, least, expected):
    assert absent_nodes(view(states, least)) == expected


def test_missing_nodes_are_told_with_what_airflow_says_of_them():
    told = list_absent({1: "queued", 2: None, 3: "upstream_failed", 4: "up_for_reschedule"}, "gpu")
    assert told == (
        "node 1 (queued in pool 'gpu'), node 2 (not scheduled yet, in pool 'gpu'), "
        "node 3 (upstream_failed), node 4 (has given its slot back, in pool 'gpu')"
    )


@pytest.mark.parametrize(
    ("states", "server", "waited", "expected"),
    [
        (["running", "queued"], None, 49, KeepSlot()),
        (["running", "queued"], None, 50, GiveSlotBack({1: "queued"})),
        (["running", "up_for_retry"], None, 50, GiveSlotBack({1: "up_for_retry"})),
        (["running", "running"], None, 49, KeepSlot()),
        # Its sibling has a slot, but has perhaps not joined yet: its rendezvous goes on.
        (["running", "running"], None, 50, KeepSlot((1,))),
        (["running", "running", "queued"], None, 1000, KeepSlot((1,))),
        (["queued", "running", "running"], 0, 50, GiveSlotBack({0: "queued"})),
        (["running", "running", "queued"], 0, 50, KeepSlot((0,))),
    ],
)
def test_a_slot_is_kept_while_those_who_are_needed_have_one_too(states, server, waited, expected):
    assert decide_slot(view(states, server=server), waited, TIMEOUT) == expected


def test_a_node_whose_siblings_can_never_come_does_not_wait_at_all():
    assert isinstance(decide_slot(view(["running", "failed"]), 0, TIMEOUT), GangHopeless)


def test_a_node_whose_siblings_have_just_succeeded_will_soon_hear_of_it():
    note = SuccessNote(node=1, nodes=2, rerun_token="0@2026", ranks=(0,), world_size=1)
    assert decide_slot(view(["running", "success"], notes=[note]), 60, TIMEOUT) == KeepSlot()


@pytest.mark.parametrize(
    ("error", "states", "expected"),
    [
        (RendezvousTimeoutError, ["running", "queued"], GiveSlotBack({1: "queued"})),
        # A sibling that has started, but has not joined, is no failure of this node.
        (RendezvousTimeoutError, ["running", "running"], GiveSlotBack({})),
        (RendezvousTimeoutError, None, GiveSlotBack({})),
        (ServerLostError, ["running", "running"], GiveSlotBack({})),
        (ServerLostError, None, GiveSlotBack({})),
        (RendezvousError, ["running", "queued"], GiveSlotBack({1: "queued"})),
        (RendezvousError, ["running", "running"], None),
        (RendezvousError, None, None),
    ],
)
def test_what_the_siblings_did_uses_up_no_try(error, states, expected):
    found = after_failed_rendezvous(None if states is None else view(states), error("x"))
    assert found == expected


@pytest.mark.parametrize("error", [RendezvousTimeoutError, ServerLostError, RendezvousError])
def test_who_lost_siblings_that_can_never_come_does_not_come_again(error):
    found = after_failed_rendezvous(view(["running", "failed"]), error("x"))
    assert isinstance(found, GangHopeless)


@given(DRAWS)
@settings(derandomize=True, max_examples=50)
def test_nodes_that_hold_each_other_up_do_not_give_up_all_at_once(draw):
    assert 75 <= slot_timeout(100, draw).absent <= 100
    assert slot_timeout(100, 0).absent - slot_timeout(100, 1).absent == 25


@given(st.floats(0.001, 1e5), DRAWS)
@settings(derandomize=True, max_examples=50)
def test_a_sibling_that_has_started_gets_as_long_as_a_start_may_take(timeout, draw):
    found = slot_timeout(timeout, draw)
    assert found.started - found.absent == pytest.approx(max(timeout, 120))


def come_back(*, now=NOW, began=0.0, gang="a", timeout=100.0, gang_timeout=1e6, attempts=0):
    found = next_attempt(
        now=now,
        began=NOW - dt.timedelta(seconds=began),
        gang=gang,
        timeout=timeout,
        gang_timeout=gang_timeout,
        attempts=attempts,
    )
    return (found.when - NOW).total_seconds() if isinstance(found, RescheduleAt) else found


def after(seconds):
    return NOW + dt.timedelta(seconds=seconds)


@given(st.floats(0, 1e5), st.integers(0, 9), st.text(max_size=5), st.floats(0, 999))
@settings(derandomize=True, max_examples=200)
def test_a_node_is_away_for_ten_seconds_at_least_and_for_a_bounded_time(now, attempts, gang, began):
    found = come_back(now=after(now), attempts=attempts, gang=gang, began=began) - now
    rarity = {0: 1, 1: 2}.get(attempts, 4)
    assert 10 - 1e-5 <= found <= 2 * rarity * 100 + 1e-3


def moments(gang, attempts, until=8000.0):
    """When a node comes back that gives up each time as soon as it is there."""
    found = [0.0]
    while found[-1] < until:
        found.append(come_back(now=after(found[-1]), gang=gang, attempts=attempts))
    return found[1:]


def near(moment, others):
    """Whether one of ``others`` is as near as the least time to stay away makes it."""
    return any(abs(moment - other) <= 10.001 for other in others)


@given(st.text(max_size=5), st.integers(1, 3))
@settings(derandomize=True, max_examples=30)
def test_who_has_come_back_more_often_comes_less_often_but_with_the_others(gang, attempts):
    rare, frequent = moments(gang, attempts), moments(gang, attempts - 1)
    assert all(near(moment, frequent) for moment in rare[:-1])
    assert attempts > 2 or len(rare) < len(frequent)
    assert attempts < 3 or rare == frequent


@given(st.text(max_size=5), st.integers(0, 3), st.floats(0, 5000))
@settings(derandomize=True, max_examples=50)
def test_nodes_that_give_up_at_different_times_come_back_together(gang, attempts, now):
    found = come_back(now=after(now), gang=gang, attempts=attempts)
    assert near(found, moments(gang, attempts)) or found == pytest.approx(now + 10)


def test_two_gangs_come_back_at_different_moments():
    ones, others = moments("a", 2), moments("b", 2)
    assert len(ones) > 10
    assert sum(near(moment, others) for moment in ones) < len(ones) / 2


@pytest.mark.parametrize(
    ("began", "timeout", "enough"),
    [(0, 0, True), (100, 100, True), (100.1, 100, True), (99, 100, False)],
)
def test_the_gangs_own_time_counts_from_the_first_start(began, timeout, enough):
    assert (come_back(began=began, gang_timeout=timeout) == TimeIsUp()) is enough


def test_a_node_comes_back_before_the_gangs_own_time_is_over():
    assert come_back(began=80, gang_timeout=100, attempts=5) <= 20


def test_a_gangs_time_is_a_number():
    with pytest.raises(ConfigError, match="gang_timeout is -1"):
        ElasticLaunchOperator.gang(
            task_id="t", nodes=2, entrypoint="true", rdzv_conn_id="c", gang_timeout=-1
        )
