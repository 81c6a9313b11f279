"""The values for people: small, and written the more rarely the more nodes there are."""

from __future__ import annotations

import datetime as dt
import json
import math

import pytest

from airflow_provider.task_state.notes import (
    checkpoint_note,
    progress_note,
    state_note,
    write_period,
)

NOON = dt.datetime(2026, 11, 29, 12, 0, 0, 123456, tzinfo=dt.UTC)
TIME = "2026-11-29T12:00:00+00:00"


def test_progress_is_that_of_the_slowest_rank_with_its_pace():
    before = {0: (100, 1000), 1: (90, 1000)}
    note = progress_note({0: (300, 1000), 1: (190, 1000)}, 50.0, before, {}, NOON)
    assert note == {
        "step": 190,
        "fastest": 300,
        "ranks": 2,
        "total": 1000,
        "steps_per_second": 2.0,
        "seconds_left": 405,
        "time": TIME,
    }


@pytest.mark.parametrize(
    ("ranks", "elapsed", "before"),
    [
        pytest.param({0: (5, 0)}, 0.0, {0: (5, 0)}, id="at the beginning"),
        pytest.param({0: (5, 0)}, 9.0, {0: (7, 0)}, id="after a restart"),
        pytest.param({0: (5, 0)}, 9.0, {}, id="of a rank that is new"),
    ],
)
def test_a_pace_that_is_not_known_is_left_out(ranks, elapsed, before):
    note = progress_note(ranks, elapsed, before, {}, NOON)
    assert note == {"step": 5, "fastest": 5, "ranks": 1, "time": TIME}


def test_metrics_are_json_whatever_they_are():
    metrics = {"loss": 0.5, "lr": math.nan, "norm": -math.inf}
    note = progress_note({0: (1, 0)}, 1.0, {}, metrics, NOON)
    assert note["metrics"] == {"loss": 0.5, "lr": "nan", "norm": "-inf"}
    json.dumps(note, allow_nan=False)


def test_notes_stay_small_whatever_is_said_and_however_many_ranks_there_are():
    ranks = {rank: (10**15 + rank, 10**16) for rank in range(4096)}
    notes = [
        progress_note(ranks, 10.0, dict.fromkeys(ranks, (1, 2)), {}, NOON),
        state_note("x" * 10**6, NOON, try_number=3, world_size=10**6, hears=True),
        checkpoint_note(10**15, "/folder" * 30, NOON),
    ]
    assert max(len(json.dumps(note)) for note in notes) < 2000


def test_the_state_says_where_orders_are_taken():
    assert state_note("runs", NOON, try_number=1, world_size=4, hears=True) == {
        "is": "runs",
        "since": TIME,
        "try": 1,
        "world_size": 4,
        "control": "taken here",
    }


@pytest.mark.parametrize("nodes", [1, 2, 16, 120, 1024])
def test_a_job_writes_at_most_once_in_five_seconds_until_it_is_large(nodes):
    period = write_period(8 * nodes, 8)
    assert 10 <= period <= 600
    assert nodes / period <= (0.2 if nodes <= 120 else 2)
