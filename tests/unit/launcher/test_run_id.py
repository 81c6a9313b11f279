"""The run id of a job that was given none, and names in general: legal, readable, never shared."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.launcher.job_names import MAX_LENGTH, job_name
from llutil.launcher.run_id import deduce_run_id

LEGAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
AIRFLOW = {
    "AIRFLOW_CTX_DAG_ID": "train_digits",
    "AIRFLOW_CTX_TASK_ID": "group.train",
    "AIRFLOW_CTX_DAG_RUN_ID": "manual__2026-11-22T09:00:00+00:00",
    "AIRFLOW_CTX_TRY_NUMBER": "1",
}

hostile = st.text(
    alphabet=st.one_of(st.sampled_from("a-._/ é+:\n\0%"), st.characters()), max_size=300
)
exact = st.lists(hostile | st.integers() | st.none(), max_size=5)


@settings(deadline=None)
@given(st.lists(hostile, max_size=5), exact)
def test_every_name_is_legal_everywhere(
    readable: list[str], values: list[str | int | None]
) -> None:
    name = job_name(readable, values)
    assert LEGAL.fullmatch(name)
    assert len(name) <= MAX_LENGTH == 128
    assert problems_of(LaunchConfig(1, 1, 1, run_id=name)) == []


@settings(deadline=None)
@given(exact, exact)
def test_two_jobs_never_share_a_name_and_one_job_keeps_its(
    one: list[str | int | None], two: list[str | int | None]
) -> None:
    assert (job_name(["slug"], one) == job_name(["slug"], two)) == (
        [(type(value), value) for value in one] == [(type(value), value) for value in two]
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (["a", "b"], ["ab"]),
        (["a,b"], ["a", "b"]),
        (["1"], [1]),
        ([None], ["None"]),
        ([None], [""]),
        (["é"], ["e"]),
        (["a" * 300], ["a" * 301]),
        (["x/y"], ["x-y"]),
        (["+00:00"], ["-00-00"]),
    ],
)
def test_names_differ_where_their_readable_parts_look_alike(
    one: list[str | int | None], two: list[str | int | None]
) -> None:
    assert job_name(["same"], one) != job_name(["same"], two)


def test_a_name_can_be_read() -> None:
    name = job_name(["train_digits", "group.train", "manual__2026-11-22T09:00:00+00:00"], ["x"])
    assert re.fullmatch(r"train_digits\.group\.train\.manual__2026-11-22T09-00-00-00-\w{16}", name)


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
