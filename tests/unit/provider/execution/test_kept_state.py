"""Who keeps the state of a task, and what it says at the end."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
)
from airflow.sdk.log import mask_secret
from airflow.sdk.timezone import utcnow

from airflow_provider.execution.hidden_texts import hider
from airflow_provider.execution.kept_state import job_state, outcome_told, state_without_launch
from airflow_provider.gang.node import GangNode
from airflow_provider.task_state.elastic_note import Ended
from airflow_provider.task_state.note_size import LIMIT
from llutil.errors import ConfigError, Problem, StoppedError, WorkersFailedError
from llutil.failure import FailureClass, JobFailure
from llutil.launcher.config import LaunchConfig
from llutil.launcher.run_id import TaskKey
from llutil.secret import Secret
from tests.unit.provider.task_state.elastic_values import failure

CONFIG = LaunchConfig(1, 1, 1, run_id="r", checkpoint_path="/c", checkpoint_job="j")
LOG = logging.getLogger("t")


class Store(dict):
    """A task's state."""

    def set(self, key, value):
        self[key] = value


class PlayedState:
    def __init__(self):
        self.closed = []

    def close(self, ended):
        self.closed.append(ended)


def nobody():
    raise AssertionError("there is a state already")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (WorkersFailedError("rank 1 failed\nTraceback"), "failed: rank 1 failed"),
        (StoppedError("stopped (Airflow)"), "failed: stopped (Airflow)"),
        (KeyboardInterrupt(), "failed: KeyboardInterrupt"),
        (AirflowSkipException("not today"), "skipped"),
        (AirflowRescheduleException(utcnow()), "waits for its siblings, without a slot"),
    ],
)
def test_each_end_of_a_try_is_told_in_one_line(error, outcome):
    state = PlayedState()
    with pytest.raises(type(error)), outcome_told([state], nobody):
        raise error
    (ended,) = state.closed
    assert (ended.outcome, ended.succeeded) == (outcome, False)
    assert ended.goes_on == isinstance(error, AirflowRescheduleException)


def told_of(error):
    state = PlayedState()
    with pytest.raises(type(error)), outcome_told([state], nobody):
        raise error
    return state.closed[0]


def test_a_failure_is_told_with_its_report_also_if_airflow_is_told_another():
    error = WorkersFailedError("rank 1 failed\nTraceback")
    error.job_failure = JobFailure(why="rank 1: boom", failure_class=FailureClass.HANG)
    told = told_of(error)
    assert (told.failure, told.report) == (error.job_failure, "rank 1 failed\nTraceback")
    hopeless = AirflowFailException("a sibling has failed")
    hopeless.__cause__ = error
    assert told_of(hopeless).failure == error.job_failure
    assert told_of(KeyboardInterrupt()).failure is None


def test_a_rank_that_has_its_task_skipped_has_not_failed():
    error = WorkersFailedError("rank 0 failed")
    rank = replace(failure(0).failure, final_exception="AirflowSkipException")
    error.job_failure = JobFailure.of(rank)
    told = told_of(error)
    assert (told.outcome, told.failure) == ("skipped", None)


def test_a_success_is_told():
    state = PlayedState()
    with outcome_told([state], nobody):
        pass
    assert state.closed == [Ended(outcome="succeeded", succeeded=True)]


def test_an_end_without_a_launch_is_told_to_a_state_that_is_made_for_it():
    made = PlayedState()
    with pytest.raises(ConfigError), outcome_told([], lambda: made):
        raise ConfigError([Problem("nproc_per_node", "is 0; wanted at least 1")])
    with outcome_told([], lambda: made):
        pass
    failed, succeeded = made.closed
    assert failed.failure.failure_class == FailureClass.BAD_CONFIGURATION
    assert "nproc_per_node is 0" in failed.report
    assert succeeded == Ended(outcome="succeeded", succeeded=True)
    with pytest.raises(StoppedError), outcome_told([], lambda: None):
        raise StoppedError("stopped")


def test_a_node_without_a_launch_says_which_node_it_is_and_no_secret():
    mask_secret("a-token-of-a-variable")
    store = Store()
    context = {"ti": SimpleNamespace(try_number=3), "task_state_store": store}
    node = GangNode(TaskKey("d", "t", "r", 1), 4, 2, "0@2026")
    state_without_launch(context, node, LOG).close(Ended(outcome="no a-token-of-a-variable"))
    note = store["elastic"]
    assert (note["label"], note["min_nodes"], note["max_nodes"]) == ("node 1", 2, 4)
    assert (note["try"], note["doing"], note["outcome"]) == (3, "ended", "no ***")
    assert state_without_launch({"ti": SimpleNamespace(try_number=3)}, None, LOG) is None


def test_an_airflow_without_a_state_for_tasks_is_told_of_once_and_does_no_harm(caplog):
    context = {"ti": SimpleNamespace(try_number=1)}
    with caplog.at_level(logging.INFO):
        assert job_state(context, CONFIG, LOG) is None
    (told,) = caplog.messages
    assert "no task_state_store, which 3.3 has" in told


def test_no_secret_of_a_launch_is_shown():
    options = {"password": Secret("hunter2"), "short": Secret("ab"), "user": "root"}
    hide = hider(replace(CONFIG, rdzv_configs=options))
    assert hide("root cannot log in with hunter2 in a lab") == (
        "root cannot log in with *** in a lab"
    )


def test_what_airflow_masks_in_logs_is_masked_in_the_state():
    mask_secret("a-token-of-a-connection")
    assert hider(CONFIG)("see a-token-of-a-connection!") == "see ***!"


def test_a_value_is_no_larger_than_airflow_takes(monkeypatch):
    told = job_state({"ti": SimpleNamespace(try_number=1), "task_state_store": {}}, CONFIG, LOG)
    assert told._elastic._limit == LIMIT
    monkeypatch.setenv("AIRFLOW__STATE_STORE__MAX_VALUE_STORAGE_BYTES", "5000")
    told = job_state({"ti": SimpleNamespace(try_number=1), "task_state_store": {}}, CONFIG, LOG)
    assert told._elastic._limit == 5000
