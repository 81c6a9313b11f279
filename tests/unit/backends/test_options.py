"""What a value that is given for an option means, and what means nothing."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

from llutil.backends.options import Kind, Option, read_options

GOOD: dict[Kind, list[tuple[Any, Any]]] = {
    Kind.SECONDS: [(30, 30.0), (30.0, 30.0), ("30", 30.0), (" 2.5 ", 2.5), (Fraction(1, 2), 0.5)],
    Kind.SECONDS_FROM_ZERO: [(0, 0.0), ("0", 0.0), (0.0, 0.0), ("30", 30.0)],
    Kind.COUNT: [(0, 0), ("0", 0), (3, 3), ("3", 3)],
    Kind.FLAG: [(True, True), ("true", True), ("Yes", True), (1, True), (0, False), ("0", False)],
    Kind.TEXT: [("0", "0"), ("123", "123"), (" a ", " a ")],
}
BAD: dict[Kind, list[Any]] = {
    Kind.SECONDS: [0, "0", -1, "soon", math.nan, math.inf, "inf", "nan", True, 10**400, [1]],
    Kind.SECONDS_FROM_ZERO: [-1, "-0.5", "nan", False, {}],
    Kind.COUNT: [-1, "-1", 1.0, "1.0", "one", True],
    Kind.FLAG: [2, "on and off", 1.0, []],
    Kind.TEXT: [3, b"x", True],
}


def read(kind: Kind, value: object, **more: Any) -> tuple[dict[str, Any], list[str]]:
    option = Option(key="key", kind=kind, text="", **more)
    values, problems = read_options([option], {"key": value}, "it", "nobody")
    return values, list(map(str, problems))


def cases(table: dict[Kind, list[Any]]) -> list[Any]:
    return [
        pytest.param(kind, value, id=f"{kind.name}-{index}")
        for kind, values in table.items()
        for index, value in enumerate(values)
    ]


def test_the_tables_cover_every_kind() -> None:
    assert set(GOOD) == set(BAD) == set(Kind)


@pytest.mark.parametrize(("kind", "case"), cases(GOOD))
def test_a_value_means_the_same_as_text(kind: Kind, case: tuple[Any, Any]) -> None:
    given, meant = case
    values, problems = read(kind, given)
    assert (values, problems) == ({"key": meant}, [])
    assert type(values["key"]) is type(meant)


@pytest.mark.parametrize(("kind", "value"), cases(BAD))
def test_what_means_nothing_is_told(kind: Kind, value: Any) -> None:
    assert read(kind, value) == ({}, [f"it has 'key': {value!r}; wanted {kind}"])


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("value", [None, ""])
def test_what_a_form_leaves_behind_was_not_given(kind: Kind, value: Any) -> None:
    assert read(kind, value) == ({}, [])


def test_a_secret_is_not_shown() -> None:
    _, (problem,) = read(Kind.TEXT, 12345, secret=True)
    assert problem == "it has 'key': a int; wanted text"


def test_unknown_keys_are_named_once_with_the_known_ones() -> None:
    option = Option(key="key", kind=Kind.TEXT, text="")
    values, problems = read_options([option], {"key": "x", "b": 1, 3: None}, "it", "nobody")
    assert values == {"key": "x"}
    assert list(map(str, problems)) == ["it has '3', 'b', which nobody does not know; it knows key"]
