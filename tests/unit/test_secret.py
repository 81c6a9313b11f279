"""A secret can be used, and is not shown."""

from __future__ import annotations

import json
import pickle

import pytest

from llutil.secret import Secret, SecretBytes, concealed


@pytest.mark.parametrize("kind", [Secret, SecretBytes])
def test_what_holds_a_secret_does_not_show_it(kind: type) -> None:
    value = concealed("hidden-word" if kind is Secret else b"hidden-word")
    assert type(value) is kind
    assert "hidden" not in repr({"password": [value]})
    assert "hidden" not in f"{value!r}"
    if kind is SecretBytes:
        assert "hidden" not in str(value)


@pytest.mark.parametrize("value", ["hidden-word", b"hidden-word", "", b"", 7, None], ids=repr)
def test_a_secret_is_equal_to_what_it_hides(value: object) -> None:
    assert concealed(value) == value
    assert concealed(concealed(value)) == value
    assert {concealed(value): 1} == {value: 1}
    assert pickle.loads(pickle.dumps(concealed(value))) == value


def test_a_secret_can_be_sent() -> None:
    assert json.loads(json.dumps({"password": Secret("hidden-word")})) == {
        "password": "hidden-word"
    }
    assert f"{Secret('hidden-word')}" == "hidden-word"


def test_that_there_is_no_secret_is_shown() -> None:
    assert (repr(Secret("")), repr(SecretBytes(b""))) == ("''", "b''")
