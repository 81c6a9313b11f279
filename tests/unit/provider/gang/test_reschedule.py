"""When a node of a gang gives its slot back and comes again, and what it says of those that are not
there.
"""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider.gang.reschedule import (
    RescheduleAt,
    TimeIsUp,
    absent_nodes,
    list_absent,
    next_attempt,
    slot_timeout,
)
from airflow_provider.operators.elastic import ElasticLaunchOperator
from llutil.errors import ConfigError

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
DRAWS = st.floats(0, 1)


def ago(seconds):
    return NOW - dt.timedelta(seconds=seconds)


def away(*, began=0.0, age=0.0, timeout=1000.0, held=60.0, draw=0.5):
    found = next_attempt(
        now=NOW, began=ago(began), run_after=ago(age), timeout=timeout, held=held, draw=draw
    )
    return (found.when - NOW).total_seconds() if isinstance(found, RescheduleAt) else found


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
    assert absent_nodes(0, least, dict(enumerate(states))) == expected


def test_missing_nodes_are_told_with_what_airflow_says_of_them():
    told = list_absent({1: "queued", 2: None, 3: "upstream_failed", 4: "up_for_reschedule"}, "gpu")
    assert told == (
        "node 1 (queued in pool 'gpu'), node 2 (not scheduled yet, in pool 'gpu'), "
        "node 3 (upstream_failed), node 4 (has given its slot back, in pool 'gpu')"
    )


@given(DRAWS, st.floats(0, 1e6), st.floats(0, 1e5), st.floats(0, 999))
@settings(derandomize=True, max_examples=200)
def test_a_node_is_away_for_as_long_as_it_was_there_at_most(draw, age, held, began):
    found = away(draw=draw, age=age, held=held, began=began)
    assert 10 - 1e-5 <= found <= max(10.0, min(held, 1000 - began)) + 1e-5


@given(DRAWS, st.floats(0, 1e5), st.floats(0, 1e5))
@settings(derandomize=True, max_examples=100)
def test_of_two_runs_the_older_one_comes_back_first(draw, one, other):
    younger, older = sorted([one, other])
    assert away(draw=draw, age=older) <= away(draw=draw, age=younger)
    assert away(draw=1, age=60) == 30 < away(draw=1, age=0) == 60


@given(DRAWS)
@settings(derandomize=True, max_examples=50)
def test_nodes_that_hold_each_other_up_do_not_give_up_all_at_once(draw):
    assert 75 <= slot_timeout(100, draw) <= 100
    assert slot_timeout(100, 0) - slot_timeout(100, 1) == 25


@pytest.mark.parametrize(
    ("began", "timeout", "enough"),
    [(0, 0, True), (100, 100, True), (100.1, 100, True), (99, 100, False)],
)
def test_the_gangs_own_time_counts_from_the_first_start(began, timeout, enough):
    assert (away(began=began, timeout=timeout) == TimeIsUp()) is enough


def test_a_gangs_time_is_a_number():
    with pytest.raises(ConfigError, match="gang_timeout is -1"):
        ElasticLaunchOperator.gang(
            task_id="t", nodes=2, entrypoint="true", rdzv_conn_id="c", gang_timeout=-1
        )
