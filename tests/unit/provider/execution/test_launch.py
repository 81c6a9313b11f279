"""What a try tells of values that nobody took."""

from __future__ import annotations

from airflow_provider.execution.launch import _with_others
from llutil.errors import ResultError
from llutil.failure import FailureClass


def missing(text, results):
    error = ResultError(text)
    error.results = results
    return error


def test_the_other_values_are_stored_and_all_is_told_in_one_error():
    error = _with_others(missing("rank 0: bytes", {1: "b"}), ["a copy is there"], dict)
    assert str(error).splitlines() == ["rank 0: bytes", "a copy is there"]
    assert error.results == {1: "b"}
    assert error.failure_class is FailureClass.RESULT


def test_what_the_store_refuses_then_is_told_too():
    def refuse(_results):
        raise missing("rank 1: no room", {2: "c"})

    error = _with_others(missing("rank 0: bytes", {1: "b", 2: "c"}), [], refuse)
    assert str(error).splitlines() == ["rank 0: bytes", "rank 1: no room"]
    assert error.results == {2: "c"}
