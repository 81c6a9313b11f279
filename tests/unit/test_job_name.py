"""Names of jobs: legal, readable, never shared, and the same in every release."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.job_name import MAX_LENGTH, is_by_chance, is_id, job_name, name_by_chance
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of

LEGAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

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


def test_a_name_by_chance_is_an_id_and_known_as_one() -> None:
    name = name_by_chance()
    assert name != name_by_chance()
    assert is_id(name)
    assert is_by_chance(name)
    assert not is_by_chance("run-1")
    assert not is_by_chance(job_name([name], [name]))


@pytest.mark.parametrize(
    ("readable", "begins"),
    [("train", "train+"), ("train digits.sh", "train-digits.sh+"), (100 * "x", 30 * "x" + "+")],
)
def test_a_name_by_chance_may_begin_with_what_people_know(readable: str, begins: str) -> None:
    name = name_by_chance(readable)
    assert name.startswith(begins)
    assert name != name_by_chance(readable)
    assert is_id(name)
    assert is_by_chance(name)


@pytest.mark.parametrize("nothing", ["", "...", "/"])
def test_a_text_without_a_letter_is_no_part_of_a_name(nothing: str) -> None:
    assert name_by_chance(nothing).startswith("run-")


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "-x", "a\n", "é", "x" * 201])
def test_what_is_no_folder_or_key_is_no_id(text: str) -> None:
    assert not is_id(text)
