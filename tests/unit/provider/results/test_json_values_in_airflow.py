"""What ``llutil.serialization.json_values`` accepts passes through Airflow's own serialisation."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from airflow.sdk import serde
from airflow.sdk._shared.serialization import FORBIDDEN_XCOM_KEYS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue, TypeAdapter

from airflow_provider.results.class_objects import for_xcom
from llutil.errors import ResultError
from llutil.serialization.json_values import encode

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(),
    TEXT,
    st.dates(),
    st.sets(st.integers(-9, 9)),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(TEXT | st.integers(0, 9) | st.sampled_from(["__type", "__id__"]), inner)
    ),
    max_leaves=8,
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(value=VALUES)
def test_whatever_is_accepted_comes_out_of_airflow_as_it_went_in(value: Any) -> None:
    try:
        sent = json.loads(encode(value, rank=0, limit=10**6))
    except ResultError:
        return
    pushed = serde.serialize(for_xcom(sent))
    assert TypeAdapter(JsonValue).validate_json(json.dumps(pushed, allow_nan=False)) == pushed
    assert serde.deserialize(pushed) == plain(value)


def plain(value: Any) -> Any:
    """``value``, but for what JSON cannot say."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case tuple():
            return tuple(plain(item) for item in value)
        case _:
            return value


def test_the_deepest_value_accepted_is_not_too_deep_for_airflows_api() -> None:
    for levels, nest in ((100, lambda inner: [inner]), (50, lambda inner: (inner,))):
        value: Any = nest(1)
        for _ in range(levels - 1):
            value = nest(value)
        sent = json.loads(encode(value, rank=0, limit=10**6))
        document = json.dumps({"return_value": {"0": serde.serialize(for_xcom(sent))}})
        assert TypeAdapter(JsonValue).validate_json(document)
        with pytest.raises(ResultError, match="nested more than 100 deep"):
            encode(nest(value), rank=0, limit=10**6)


def test_every_key_that_airflow_forbids_is_refused() -> None:
    for key in FORBIDDEN_XCOM_KEYS:
        with pytest.raises(ResultError, match="is under a key that Airflow keeps for itself"):
            encode({key: 1}, rank=0, limit=10**6)
