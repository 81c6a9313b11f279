"""Rendezvous ids: readable, legal everywhere, and never the same for two different launches."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider.parameters.rendezvous_id import TaskKey
from llutil.launcher.job_names import MAX_LENGTH

LEGAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

# Identifiers that are made to look alike once odd characters are replaced or long ones cut.
HOSTILE = st.one_of(
    st.sampled_from(
        [
            "",
            "a",
            "a/b",
            "a-b",
            "a.b",
            "a b",
            "..",
            "-",
            '"',
            '","',
            "x" * 300,
            "x" * 299 + "y",
            "manual__2026-11-22T07:27:39+00:00",
            "manual__2026-11-22T07:27:39-00:00",
            "scheduled__2026-11-22T07:27:39.123456+00:00",
            "düsseldorf",
            "dusseldorf",
            "\u202e",
            "训练",
            "\ud800",
            "t1",
            "m1",
            "\x00",
            "\n",
        ]
    ),
    st.text(max_size=40),
    st.text(alphabet="a./-_+:\"',", max_size=12),
)
LAUNCHES = st.tuples(
    st.builds(TaskKey, HOSTILE, HOSTILE, HOSTILE, st.integers(-1, 3)),
    st.integers(1, 12),
    st.integers(1, 12),
)


@given(LAUNCHES)
@settings(derandomize=True, max_examples=100)
def test_an_id_is_legal_in_every_backend_directory_and_etcd_key(launch):
    key, try_number, attempt = launch
    for name in (key.rendezvous_id(try_number, attempt), key.slug()):
        assert LEGAL.fullmatch(name), name
        assert len(name) <= MAX_LENGTH


@given(LAUNCHES, LAUNCHES)
@settings(derandomize=True, max_examples=200)
def test_two_different_launches_never_share_an_id(one, other):
    ids = {launch: launch[0].rendezvous_id(*launch[1:]) for launch in (one, other)}
    assert len(set(ids.values())) == len(ids)


@given(LAUNCHES, LAUNCHES)
@settings(derandomize=True, max_examples=100)
def test_the_slug_is_the_same_for_every_try_and_differs_between_task_instances(one, other):
    assert (one[0] == other[0]) == (one[0].slug() == other[0].slug())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TaskKey("a.b", "c", "r"), TaskKey("a", "b.c", "r")),
        (TaskKey("a", "b", "r", 1), TaskKey("a", "b", "r.m1", -1)),
        (TaskKey("d" * 300, "t", "r"), TaskKey("d" * 301, "t", "r")),
        (TaskKey("d", "t", "x+00:00"), TaskKey("d", "t", "x-00-00")),
        (TaskKey("d", 't", "r', "r"), TaskKey("d", "t", 'r", "r')),
    ],
)
def test_values_that_look_alike_in_the_slug_still_differ(one, other):
    assert one.rendezvous_id(1, 1) != other.rendezvous_id(1, 1)


def test_a_person_can_read_which_task_an_id_belongs_to():
    key = TaskKey("train_digits", "train", "manual__2026-11-22T07:27:39+00:00", 2)
    name = key.rendezvous_id(try_number=3, attempt=1)
    assert name.startswith("train_digits.train.manual__2026-11-22T07-27-39-00.m2.t3.a1-")


def test_a_run_that_was_deleted_and_triggered_again_has_other_ids_in_the_same_place():
    before, after = (
        TaskKey("d", "t", "r", 0, run_after=f"2026-11-22T07:2{minute}:39+00:00")
        for minute in (7, 8)
    )
    assert before.gang_id() != after.gang_id()
    assert before.rendezvous_id(1, 1) != after.rendezvous_id(1, 1)
    assert before.slug() == after.slug()


def test_all_nodes_of_a_gang_have_one_id():
    keys = [TaskKey("d", "t", "r", node, "2026-11-22T07:27:39+00:00") for node in range(3)]
    assert len({key.gang_id() for key in keys}) == 1


def test_each_try_and_each_attempt_gets_its_own_id():
    key = TaskKey("d", "t", "r")
    ids = {
        key.rendezvous_id(try_number, attempt) for try_number in range(1, 4) for attempt in (1, 2)
    }
    assert len(ids) == 6
