"""What ``llutil.serialization.json_values`` makes of a result passes through Airflow's own
serialisation unchanged.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import serde
from airflow.sdk._shared.serialization import FORBIDDEN_XCOM_KEYS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue, TypeAdapter

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
        plain = json.loads(encode(value, rank=0, limit=10**6))
    except ResultError:
        return
    assert serde.serialize(plain) == plain
    assert serde.deserialize(plain) == plain
    assert TypeAdapter(JsonValue).validate_json(json.dumps(plain)) == plain


def test_the_deepest_value_accepted_is_not_too_deep_for_airflows_api() -> None:
    value: list[Any] = []
    for _ in range(99):
        value = [value]
    document = json.dumps({"return_value": {"0": json.loads(encode(value, rank=0, limit=10**6))}})
    assert TypeAdapter(JsonValue).validate_json(document)
    with pytest.raises(ResultError, match="nested more than 100 deep"):
        encode([value], rank=0, limit=10**6)


def test_every_key_that_airflow_forbids_is_refused() -> None:
    for key in FORBIDDEN_XCOM_KEYS:
        with pytest.raises(ResultError, match="is under a key that Airflow keeps for itself"):
            encode({key: 1}, rank=0, limit=10**6)
