"""The value of the key ``elastic`` stays small whatever it is made of, and shows no secret."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider.task_state.elastic_note import Ended
from airflow_provider.task_state.note_size import LIMIT, fitted, json_size, shown, shown_text
from llutil.failure import JobFailure
from llutil.task_link.job_events import (
    NodeStatus,
    Progress,
    RoundBegan,
    RoundEnded,
    Saved,
    TimeSpent,
)
from tests.unit.provider.task_state.elastic_values import (
    FACTS,
    a_round,
    failed,
    failure,
    heard,
    note_of,
    ranks_of,
    status,
)

EMOJI = "\N{SNOWMAN WITHOUT SNOW}\N{GRINNING FACE}"
LONG = "x" * 10_000
HUGE = EMOJI * 1_000_000


def checked(note):
    assert len(json.dumps(note, allow_nan=False)) <= LIMIT
    json.dumps(note, ensure_ascii=False).encode()  # Airflow's client sends it as UTF-8
    return note


def job(*, nodes, ranks, rounds, metrics, label, why):
    """A long life of a job."""
    members = tuple(f"{number}{label}" for number in range(nodes))
    told = status(
        *(None,) * ranks, nodes=nodes, world_size=nodes * ranks, members=members, host=label
    )
    end = failed(0, *range(1, ranks)).end
    ended = RoundEnded(replace(end, why=why, failure=failure(0, why)))
    steps = dict.fromkeys(range(ranks), (2**63, 2**64 - 1))
    named = {f"{name}{label}": math.pi * 1e-30 for name in range(metrics)}
    for number in range(rounds):
        yield RoundBegan(number, nodes * ranks, tuple(range(ranks)))
        yield NodeStatus(msgspec.structs.replace(told.status, round=number))
        yield Progress(steps, named)
        yield RoundBegan(number, 0, ())
        yield ended
        yield Saved(number)


WORST = {
    "64 nodes with 8 ranks": {"nodes": 64, "ranks": 8, "rounds": 60, "label": "dag.task.run.17"},
    "10 KB labels": {"nodes": 64, "ranks": 8, "rounds": 60, "label": LONG},
    "no ASCII": {"nodes": 64, "ranks": 256, "rounds": 60, "label": EMOJI * 5000},
    "256 ranks": {"nodes": 64, "ranks": 256, "rounds": 3, "label": "x"},
    "10,000 rounds": {"nodes": 64, "ranks": 8, "rounds": 10_000, "label": "dag.task.run.17"},
}


@pytest.mark.parametrize("case", WORST)
def test_the_worst_jobs_fit_and_what_was_left_out_is_named(case):
    why = LONG
    events = [*job(**WORST[case], metrics=20, why=why), TimeSpent(1e300, 1.0, 10**9, HUGE)]
    end = Ended(outcome=HUGE, succeeded=False, failure=failure(0, why), report=HUGE)
    note = checked(note_of(events, end, facts=replace(FACTS, label=LONG, folder=HUGE)))
    assert note["left_out"]
    assert note["failure"]["ranks"][0]["culprit"]
    assert note["rounds"]


def test_a_long_job_of_usual_names_keeps_its_curves_and_its_last_rounds_whole():
    events = [event for number in range(30) for event in (*a_round(1, 2), failed(1))]
    events += [Progress({0: (step, 0)}, {"loss": 1 / step, "lr": 0.1}) for step in range(1, 2000)]
    note = checked(note_of(events))
    assert note["left_out"] == []
    assert [len(points) for points in note["curves"]["metrics"].values()] == [200, 200]
    assert len(note["rounds"]) == 30
    assert all(one["nodes"] for one in note["rounds"])


def test_curves_keep_their_first_and_last_points():
    steps = [Progress({0: (step, 0)}, {"loss": float(step)}) for step in range(1, 10_001)]
    points = note_of([*a_round(), *steps])["curves"]["metrics"]["loss"]
    assert len(points) == 200
    assert (points[0][0], points[-1][0]) == (1, 10_000)
    gaps = [late[0] - early[0] for early, late in pairwise(points)]
    assert max(gaps) < 3 * 10_000 / 200


def test_a_curve_goes_back_with_its_ranks():
    events = [*a_round(1, 2, 3, 4), *a_round(3, 4, 5)]
    points = note_of(events)["curves"]["metrics"]["loss"]
    assert [point[0] for point in points] == [1, 2, 3, 4, 5]


def test_the_first_eight_metrics_have_curves():
    events = [*a_round(), Progress({0: (1, 0)}, {f"m{n}": 1.0 for n in range(9)})]
    note = note_of(events)
    assert list(note["curves"]["metrics"]) == [f"m{n}" for n in range(8)]
    assert note["left_out"] == ["curves"]


def test_many_rounds_are_the_last_ones():
    events = [event for number in range(60) for event in (*a_round(number + 1), failed(1))]
    before = note_of([*a_round(1), failed(1)])
    note = note_of(events, earlier=before)
    assert len(note["rounds"]) == 50
    assert note["rounds"][-1]["first_step"] == 60
    assert note["left_out"] == ["rounds"]


NASTY = st.one_of(st.text(max_size=50), st.sampled_from([LONG, EMOJI * 5000, "\x00\ud800\n" * 99]))


@given(
    texts=st.lists(NASTY, min_size=6, max_size=6),
    ranks=st.integers(1, 300),
    nodes=st.integers(1, 80),
    value=st.floats(),
    rounds=st.integers(0, 52),
    limit=st.sampled_from([500, 5_000, 20_000, LIMIT]),
)
@example(texts=[HUGE] * 6, ranks=300, nodes=80, value=math.nan, rounds=60, limit=500)
@settings(derandomize=True, max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_it_is_made_of_it_is_json_of_the_size_that_was_wanted(
    texts, ranks, nodes, value, rounds, limit
):
    label, host, why, name, report, folder = texts
    told = status(1, host=host, ranks=ranks_of(*range(ranks)), members=(label,) * nodes, rate=value)
    events = [told]
    for number in range(rounds):
        events += [RoundBegan(0, ranks, (0,)), told, failed(number % 7)]
        events += [Progress({0: (number, 0)}, {f"{name}{number}": value})]
    end = Ended(outcome=why, succeeded=False, failure=JobFailure(why=why), report=report)
    facts = replace(FACTS, label=label, folder=folder)
    first = note_of(events, end, facts=facts)
    note = note_of(events, end, facts=facts, earlier=first, limit=limit)
    assert len(json.dumps(note, allow_nan=False)) <= limit
    json.dumps(note, ensure_ascii=False).encode()
    assert note["version"] == 1


def test_texts_are_cut_and_say_so():
    assert shown_text("a" * 300, 200, str) == "a" * 196 + " ..."
    assert shown_text("a" * 100, 200, str) == "a" * 100
    assert json_size(shown_text(EMOJI * 100, 200, str)) <= 202


def test_no_text_moves_a_cursor_or_is_refused_by_a_database():
    text = shown_text("a\x00b\x1b[31mred\x1b[0m\x1b[2J\ud800\u202e\r\nnext\n", 500, str)
    assert text == "a\\x00bred\\x1b[2J?\\u202e\nnext"


def test_secrets_are_hidden_wherever_they_are_and_before_a_text_is_cut():
    secret = "hunter2"
    long = "y" * 990 + secret
    end = Ended(outcome=long, succeeded=False, failure=failure(0, secret), report=f"a {secret} b")
    events = [status(1, host=secret, detail=f"x{secret}"), *a_round(1), failed(1)]
    events += [Progress({0: (2, 0)}, {secret: 1.0})]
    note = note_of(events, end, hide=lambda text: text.replace(secret, "***"))
    assert "hunter" not in json.dumps(note)
    assert note["failure"]["report"] == "a *** b"


def test_an_address_with_a_password_loses_it():
    text = "cannot reach etcd://root:hunter2@host:2379 or s3://key:se/cret"
    assert shown_text(text, 500, str) == "cannot reach etcd://***@host:2379 or s3://key:se/cret"


def test_what_cannot_be_cut_any_more_still_says_that_the_node_lives():
    note = fitted(shown(note_of(a_round(1)), str), 300)
    assert note.keys() == {
        "version",
        "time",
        "every",
        "try",
        "doing",
        "succeeded",
        "left_out",
    }


def test_memory_does_not_grow_with_rounds():
    seen = heard(job(nodes=2, ranks=2, rounds=500, metrics=3, label="x", why="w")).seen()
    assert seen is not None
    assert (len(seen.rounds), len(seen.committed)) == (50, 20)
    assert sum(map(len, seen.metrics.values())) <= 8 * 400
