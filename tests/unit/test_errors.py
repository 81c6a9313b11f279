"""Every error says what kind it is, whether a retry can help, and survives a pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from llutil import errors
from llutil.errors import Problem
from llutil.failure import FailureClass, JobFailure
from tests.support.rendezvous_values import failure

EXAMPLES: list[tuple[errors.LaunchError, FailureClass, bool]] = [
    (errors.LaunchError("x"), FailureClass.INFRASTRUCTURE, False),
    (errors.ConfigError("x"), FailureClass.BAD_CONFIGURATION, False),
    (errors.ConfigError(["x", Problem("f", "y")]), FailureClass.BAD_CONFIGURATION, False),
    (errors.EntrypointError("x"), FailureClass.BAD_CONFIGURATION, False),
    (errors.InfrastructureError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.RendezvousError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.ServerLostError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.RendezvousTimeoutError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.AgentLostError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.CheckpointError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.CheckpointStoreError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.CheckpointPeerError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.CheckpointAbandonedError("x"), FailureClass.INFRASTRUCTURE, True),
    (errors.StoppedError("x"), FailureClass.PREEMPTION, False),
    (errors.ResultError("x"), FailureClass.RESULT, False),
    (errors.WorkersFailedError("x"), FailureClass.USER_CODE, False),
]
for _told in (errors.WorkersFailedError("x"), errors.ConfigError(["x", "y"])):
    _told.job_failure, _told.step = JobFailure.of(failure(failure_class=FailureClass.HANG)), 7
    EXAMPLES.append((_told, FailureClass.HANG, False))


@pytest.mark.parametrize(("error", "failure_class", "retryable"), EXAMPLES)
def test_an_error_says_its_class_and_whether_a_retry_can_help(
    error: errors.LaunchError, failure_class: FailureClass, retryable: bool
) -> None:
    assert error.failure_class is failure_class
    assert error.retryable is retryable


@pytest.mark.parametrize("error", [error for error, _, _ in EXAMPLES])
@pytest.mark.parametrize("travel", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_a_pickle_with_all_it_says(
    error: errors.LaunchError, travel: Any
) -> None:
    other = travel(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert other.job_failure == error.job_failure


def test_the_examples_above_are_all_the_errors_there_are() -> None:
    public = {getattr(errors, name) for name in errors.__all__} - {errors.Problem}
    assert {type(error) for error, _, _ in EXAMPLES} == public


def test_one_problem_is_the_text_and_several_are_a_list() -> None:
    assert str(errors.ConfigError("nnodes is '4:2'")) == "nnodes is '4:2'"
    several = errors.ConfigError(["nnodes is '4:2'", "no entrypoint"])
    assert str(several) == "2 things are wrong:\n  - nnodes is '4:2'\n  - no entrypoint"
    assert several.problems == (Problem("", "nnodes is '4:2'"), Problem("", "no entrypoint"))


def test_a_problem_reads_as_a_sentence_that_begins_with_its_field() -> None:
    problem = Problem("run_id", "is 'a b'; wanted a name")
    assert str(problem) == str(errors.ConfigError(problem)) == "run_id is 'a b'; wanted a name"
    assert errors.ConfigError([problem]).problems == (problem,)


def test_bad_configuration_is_caught_as_the_value_error_that_it_is() -> None:
    with pytest.raises(ValueError, match="wrong"):
        raise errors.EntrypointError("wrong")


def test_the_step_of_an_error_is_the_furthest_that_was_told() -> None:
    error = errors.WorkersFailedError("x")
    assert error.step == 0
    error.job_failure = JobFailure.of(failure(step=7))
    assert error.step == 7
    error.step = 3
    assert error.step == 7, "another rank had come further"
    error.step = 9
    assert error.step == 9
