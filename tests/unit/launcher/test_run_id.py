"""Ids of jobs and tasks: legal, readable, never shared, and the same in every release."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.job_name import MAX_LENGTH
from llutil.launcher.run_id import TaskKey, deduce_run_id, is_named_by

LEGAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
AIRFLOW = {
    "AIRFLOW_CTX_DAG_ID": "train_digits",
    "AIRFLOW_CTX_TASK_ID": "group.train",
    "AIRFLOW_CTX_DAG_RUN_ID": "manual__2026-11-22T09:00:00+00:00",
    "AIRFLOW_CTX_TRY_NUMBER": "1",
}


def test_a_variable_names_the_run() -> None:
    assert deduce_run_id({"LLUTIL_RUN_ID": "mine", **AIRFLOW}) == "mine"


def test_a_task_of_airflow_names_the_run_by_what_identifies_its_try() -> None:
    first = deduce_run_id(AIRFLOW)
    assert first.startswith("train_digits.group.train.manual__2026")
    assert deduce_run_id(AIRFLOW) == first
    for name in AIRFLOW:
        assert deduce_run_id(AIRFLOW | {name: "other"}) != first, name


@pytest.mark.parametrize("lacking", ["AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_TASK_ID"])
def test_without_a_whole_identity_the_run_gets_a_name_of_its_own(lacking: str) -> None:
    environ = {name: value for name, value in AIRFLOW.items() if name != lacking}
    names = {deduce_run_id(environ), deduce_run_id(environ), deduce_run_id({}), deduce_run_id({})}
    assert len(names) == 4
    assert all(LEGAL.fullmatch(name) for name in names)


def test_an_empty_variable_names_nothing() -> None:
    assert deduce_run_id({"LLUTIL_RUN_ID": ""}).startswith("run-")


# Identifiers that are made to look alike once odd characters are replaced or long ones cut.
IDENTIFIERS = st.one_of(
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
Launch = tuple[TaskKey, int, int]
LAUNCHES = st.tuples(
    st.builds(TaskKey, IDENTIFIERS, IDENTIFIERS, IDENTIFIERS, st.integers(-1, 3)),
    st.integers(1, 12),
    st.integers(1, 12),
)


@given(LAUNCHES)
@settings(derandomize=True, max_examples=100)
def test_an_id_of_a_task_is_legal_everywhere(launch: Launch) -> None:
    key, try_number, attempt = launch
    for name in (key.rendezvous_id(try_number, attempt), key.slug()):
        assert LEGAL.fullmatch(name), name
        assert len(name) <= MAX_LENGTH


@given(LAUNCHES, LAUNCHES)
@settings(derandomize=True, max_examples=200)
def test_two_different_launches_never_share_an_id(one: Launch, other: Launch) -> None:
    ids = {launch: launch[0].rendezvous_id(*launch[1:]) for launch in (one, other)}
    assert len(set(ids.values())) == len(ids)


@given(LAUNCHES, LAUNCHES)
@settings(derandomize=True, max_examples=100)
def test_the_slug_is_the_same_for_every_try_and_differs_between_task_instances(
    one: Launch, other: Launch
) -> None:
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
def test_values_that_look_alike_in_the_slug_still_differ(one: TaskKey, other: TaskKey) -> None:
    assert one.rendezvous_id(1, 1) != other.rendezvous_id(1, 1)


def test_a_person_can_read_which_task_an_id_belongs_to() -> None:
    key = TaskKey("train_digits", "train", "manual__2026-11-22T07:27:39+00:00", 2)
    name = key.rendezvous_id(try_number=3, attempt=1)
    assert name.startswith("train_digits.train.manual__2026-11-22T07-27-39-00.m2.t3.a1-")


def test_a_run_that_was_deleted_and_triggered_again_has_other_ids_in_the_same_place() -> None:
    before, after = (
        TaskKey("d", "t", "r", 0, run_after=f"2026-11-22T07:2{minute}:39+00:00")
        for minute in (7, 8)
    )
    assert before.gang_id() != after.gang_id()
    assert before.rendezvous_id(1, 1) != after.rendezvous_id(1, 1)
    assert before.slug() == after.slug()


def test_all_nodes_of_a_gang_have_one_id() -> None:
    keys = [TaskKey("d", "t", "r", node, "2026-11-22T07:27:39+00:00") for node in range(3)]
    assert len({key.gang_id() for key in keys}) == 1


def test_each_try_and_each_attempt_gets_its_own_id() -> None:
    key = TaskKey("d", "t", "r")
    ids = {
        key.rendezvous_id(try_number, attempt) for try_number in range(1, 4) for attempt in (1, 2)
    }
    assert len(ids) == 6


def test_ids_stay_what_they_were_so_that_nodes_of_two_releases_meet() -> None:
    key = TaskKey(
        "train_digits",
        "group.train",
        "manual__2026-11-22T09:00:00+00:00",
        2,
        "2026-11-22T09:00:00+00:00",
    )
    task = "train_digits.group.train.manual__2026-11-22T09-00-00-00"
    assert key.rendezvous_id(try_number=3, attempt=1) == f"{task}.m2.t3.a1-6xdvd5y56o4x6enc"
    assert key.slug("airflow") == f"{task}.m2-x4s44drbfs3z3ork"
    assert key.gang_id() == f"{task}-jl3j5irdi6kgubm6"
    assert deduce_run_id(AIRFLOW) == f"{task}.1-255zk452qrfiekst"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LLUTIL_RUN_ID": ""},
        {"LLUTIL_RUN_ID": "x"},
        AIRFLOW,
        {**AIRFLOW, "AIRFLOW_CTX_TASK_ID": ""},
    ],
)
def test_an_id_is_random_where_the_environment_names_none(environ: dict[str, str]) -> None:
    assert (deduce_run_id(environ) == deduce_run_id(environ)) is is_named_by(environ)
