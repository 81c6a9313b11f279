"""What the agent raised reaches the task as an error that it knows."""

from __future__ import annotations

import pytest

from airflow_provider.agent_client.error_from_message import error_from
from llutil import errors
from llutil.failure import FailureClass, JobFailure
from llutil.task_link.messages import JobFailed
from tests.support.rendezvous_values import failure

OWN = [
    name
    for name in errors.__all__
    if isinstance(found := getattr(errors, name), type) and issubclass(found, errors.LaunchError)
]


@pytest.mark.parametrize("name", OWN)
def test_an_error_of_ours_keeps_its_class_and_text(name):
    original = getattr(errors, name)("what happened")
    failed = JobFailed(
        name, str(original), original.retryable, JobFailure(failure_class=original.failure_class)
    )
    error = error_from(failed)
    assert type(error) is type(original)
    assert str(error) == "what happened"
    assert (error.failure_class, error.retryable) == (original.failure_class, original.retryable)


@pytest.mark.parametrize(
    ("name", "failure_class", "retryable", "expected"),
    [
        ("ChildFailedError", FailureClass.USER_CODE, False, "WorkersFailedError"),
        ("MemoryError", FailureClass.OUT_OF_MEMORY, False, "WorkersFailedError"),
        ("DistStoreError", FailureClass.INFRASTRUCTURE, True, "InfrastructureError"),
        ("TypeError", FailureClass.BAD_CONFIGURATION, False, "ConfigError"),
        ("FailureClass", FailureClass.USER_CODE, False, "WorkersFailedError"),
        ("annotations", FailureClass.USER_CODE, False, "WorkersFailedError"),
    ],
)
def test_any_other_error_becomes_the_nearest_of_ours(name, failure_class, retryable, expected):
    error = error_from(
        JobFailed(name, "report", retryable, JobFailure(failure_class=failure_class))
    )
    assert type(error).__name__ == expected
    assert (error.failure_class, error.retryable) == (failure_class, retryable)


def test_what_the_agent_says_of_a_failure_counts_more_than_its_class():
    error = error_from(
        JobFailed(
            "WorkersFailedError", "oom", True, JobFailure(failure_class=FailureClass.OUT_OF_MEMORY)
        )
    )
    assert error.failure_class is FailureClass.OUT_OF_MEMORY
    assert error.retryable
    assert (error.failure, error.step) == (None, 0)


def test_the_failed_rank_is_told_with_all_its_fields():
    failed = failure(trace="Traceback", step=7)
    error = error_from(JobFailed("WorkersFailedError", "x", False, JobFailure.of(failed)))
    assert (error.failure, error.step) == (failed, 7)


def test_a_missing_result_comes_with_the_others():
    error = error_from(JobFailed("ResultError", "rank 0: bytes", False, JobFailure()), {1: "fine"})
    assert isinstance(error, errors.ResultError)
    assert error.results == {1: "fine"}
