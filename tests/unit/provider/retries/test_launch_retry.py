"""Launches are repeated for infrastructure only, within bounds, and each repetition says why."""

from __future__ import annotations

import pytest

from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.errors import (
    AgentLostError,
    ConfigError,
    RendezvousError,
    ResultError,
    StoppedError,
    WorkersFailedError,
)


class Launches:
    """Fails with each of ``errors`` in turn, then succeeds."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.attempts = []
        self.slept = []
        self.said = []

    def __call__(self, attempt):
        self.attempts.append(attempt)
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def run(self, retry, stopped=lambda: False, **callbacks):
        say, sleep = self.said.append, self.slept.append
        return retry.run(self, stopped=stopped, say=say, sleep=sleep, **callbacks)


def test_infrastructure_errors_are_tried_again_with_numbered_attempts():
    launches = Launches(RendezvousError("store away"), AgentLostError("gone"))
    assert launches.run(LaunchRetry()) == "done"
    assert launches.attempts == [1, 2, 3]


def test_attempts_are_counted_anew_after_one_that_does_not_count():
    lost = [RendezvousError("a"), AgentLostError("lost"), AgentLostError("lost")]
    launches = Launches(*lost, RendezvousError("b"), AgentLostError("lost"))
    retry = LaunchRetry(wait_initial=2, jitter=0)
    assert launches.run(retry, counts=lambda error: isinstance(error, RendezvousError)) == "done"
    assert launches.attempts == [1, 2, 3, 4, 5, 6]
    assert launches.slept == [2, 2, 2, 2, 2]
    assert launches.said[1] == "launch follows again in 2.0 s. lost"


def test_what_does_not_count_is_not_repeated_for_a_job_that_was_stopped():
    launches = Launches(AgentLostError("lost"))
    with pytest.raises(AgentLostError):
        launches.run(LaunchRetry(), stopped=lambda: True, counts=lambda _: False)


def test_each_repetition_says_why_and_when():
    launches = Launches(RendezvousError("store away"))
    launches.run(LaunchRetry(wait_initial=2, jitter=0))
    assert launches.said == [
        "launch attempt 1 of 3 failed; the next one follows in 2.0 s. store away"
    ]


def test_waits_grow_to_their_bound_with_jitter_on_top():
    launches = Launches(*[RendezvousError("x")] * 5)
    launches.run(LaunchRetry(attempts=6, wait_initial=1, wait_max=4, jitter=0))
    assert launches.slept == [1, 2, 4, 4, 4]
    jittered = Launches(RendezvousError("x"))
    jittered.run(LaunchRetry(wait_initial=1, jitter=0.5))
    assert 1 <= jittered.slept[0] <= 1.5


class Timeout(BaseException):
    """Like Airflow's, no Exception."""


@pytest.mark.parametrize(
    "error",
    [
        WorkersFailedError("rank 0 failed"),
        ConfigError("no"),
        StoppedError("stop"),
        ResultError("bytes"),
        ValueError("ours"),
        Timeout(),
        KeyboardInterrupt(),
    ],
)
def test_nothing_else_is_tried_again(error):
    launches = Launches(error)
    with pytest.raises(type(error)):
        launches.run(LaunchRetry())
    assert launches.attempts == [1]


def test_the_last_attempts_own_error_is_raised():
    launches = Launches(RendezvousError("first"), RendezvousError("second"))
    with pytest.raises(RendezvousError, match="second"):
        launches.run(LaunchRetry(attempts=2))


def test_no_attempt_begins_after_the_time_is_up():
    launches = Launches(*[RendezvousError("x")] * 3)
    with pytest.raises(RendezvousError):
        launches.run(LaunchRetry(max_elapsed=0.5, wait_initial=1))
    assert launches.attempts == [1]


def test_a_stopped_task_tries_nothing_again():
    launches = Launches(RendezvousError("x"))
    with pytest.raises(RendezvousError):
        launches.run(LaunchRetry(), stopped=lambda: True)
    assert launches.attempts == [1]


def test_one_attempt_means_no_repetition():
    launches = Launches(RendezvousError("x"))
    with pytest.raises(RendezvousError):
        launches.run(LaunchRetry(attempts=1))


def test_bounds_that_make_no_sense_are_named_all_at_once():
    with pytest.raises(ConfigError) as caught:
        LaunchRetry(attempts=0, wait_max=-1)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    "given",
    [{"attempts": "3"}, {"attempts": 1.5}, {"attempts": True}, {"jitter": "1"}, {"wait_max": None}],
)
def test_what_is_no_number_is_named(given):
    ((name, value),) = given.items()
    with pytest.raises(ConfigError, match=f"LaunchRetry.{name} is {value!r}; wanted"):
        LaunchRetry(**given)
