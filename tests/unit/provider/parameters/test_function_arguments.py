"""What a function gets: its own arguments, upstream values read out, and the context values that it
names.
"""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pendulum
import pytest
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

from airflow_provider.parameters.function_arguments import (
    LIVE_CONTEXT,
    PLAIN_CONTEXT,
    context_arguments,
    read_lazy_sequences,
)
from llutil.errors import EntrypointError

NOW = pendulum.datetime(2026, 11, 22, 9, 30, tz="Europe/Berlin")
CONTEXT = {
    "run_id": "r",
    "ds": "2026-11-22",
    "logical_date": NOW,
    "params": {"epochs": 3},
    "ti": SimpleNamespace(try_number=2),
    "task": object(),
}


class Mapped(LazyXComSequence):
    """Airflow's own sequence, holding what it would otherwise ask a server for."""

    def __init__(self, *items):
        self._items = items

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


Mapped.__module__ = LazyXComSequence.__module__


def test_every_name_of_airflows_context_is_either_plain_or_live():
    assert PLAIN_CONTEXT | LIVE_CONTEXT == KNOWN_CONTEXT_KEYS
    assert not PLAIN_CONTEXT & LIVE_CONTEXT


def test_a_mapped_upstreams_values_are_read_into_lists_however_deep():
    value = {"all": Mapped(1, Mapped(2, 3)), "pair": (Mapped(4), "x")}
    out = read_lazy_sequences(value)
    assert out == {"all": [1, [2, 3]], "pair": ([4], "x")}
    assert type(out["all"]) is list
    assert type(out["all"][1]) is list
    assert type(out["pair"][0]) is list


def test_other_values_are_handed_on_as_they_are():
    import collections

    point = collections.namedtuple("point", "x y")(1, 2)
    for value in ("abc", b"abc", range(3), point, None, 1.5):
        assert read_lazy_sequences(value) is value


def test_a_function_gets_the_plain_context_values_that_it_names():
    def train(epochs, run_id, *, ds=None, params, logical_date, try_number): ...

    assert context_arguments(train, [5], {}, CONTEXT) == {
        "run_id": "r",
        "ds": "2026-11-22",
        "params": {"epochs": 3},
        "logical_date": dt.datetime(2026, 11, 22, 8, 30, tzinfo=dt.UTC),
        "try_number": 2,
    }


def test_times_need_no_pendulum_on_the_other_side():
    def train(logical_date): ...

    value = context_arguments(train, [], {}, CONTEXT)["logical_date"]
    assert type(value) is dt.datetime
    assert value == NOW


def test_what_the_dag_file_gives_comes_before_the_context():
    def train(run_id, ti, task): ...

    assert context_arguments(train, ["mine"], {"ti": 1, "task": 2}, CONTEXT) == {}


def test_a_function_with_keyword_arguments_at_large_gets_none_of_the_context():
    def train(**kwargs): ...

    assert context_arguments(train, [], {}, CONTEXT) == {}


class Array:
    """Compared with anything it gives an array, which is neither true nor false."""

    __hash__ = None

    def __eq__(self, other):
        return Array()

    def __bool__(self):
        raise ValueError("ambiguous")


def test_a_default_that_is_an_array_is_a_default():
    def train(epochs, task=Array(), weights=Array(), ds=Array()): ...  # noqa: B008

    assert context_arguments(train, [1], {}, CONTEXT) == {"ds": "2026-11-22"}


def test_live_context_values_are_refused_all_at_once_with_what_to_do():
    def train(ti, conn=None, task="mnist"): ...

    with pytest.raises(EntrypointError) as caught:
        context_arguments(train, [], {}, CONTEXT)
    first, second = caught.value.problems
    assert "parameter 'ti' means Airflow's context value 'ti'" in first.text
    assert "op_kwargs={'uri': '{{ conn.my_conn.get_uri() }}'}" in second.text


def test_a_value_that_this_run_does_not_have_is_missed_only_without_a_default():
    def lenient(ts=None): ...
    def strict(ts): ...

    assert context_arguments(lenient, [], {}, CONTEXT) == {}
    with pytest.raises(EntrypointError, match="'ts' has no value in this DAG run"):
        context_arguments(strict, [], {}, CONTEXT)


def test_a_function_whose_signature_is_hidden_gets_nothing_of_the_context():
    assert context_arguments(dict.fromkeys, [], {}, CONTEXT) == {}
    assert context_arguments(max, [1, 2], {}, CONTEXT) == {}
