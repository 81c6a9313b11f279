"""Who keeps the state of a task, and what it says at the end."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException
from airflow.sdk.log import mask_secret
from airflow.sdk.timezone import utcnow

from airflow_provider.execution.hidden_texts import hider
from airflow_provider.execution.kept_state import job_state, outcome_told
from airflow_provider.task_state.note_size import LIMIT
from llutil.errors import StoppedError, WorkersFailedError
from llutil.launcher.config import LaunchConfig
from llutil.secret import Secret

CONFIG = LaunchConfig(1, 1, 1, run_id="r", checkpoint_path="/c", checkpoint_job="j")
LOG = logging.getLogger("t")


class PlayedState:
    def __init__(self):
        self.closed = []

    def close(self, outcome, error=None, *, goes_on=False):
        self.closed.append((outcome, error, goes_on))


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
    with pytest.raises(type(error)), outcome_told([state]):
        raise error
    goes_on = isinstance(error, AirflowRescheduleException)
    assert state.closed == [(outcome, error, goes_on)]


def test_a_success_is_told():
    state = PlayedState()
    with outcome_told([state]):
        pass
    assert state.closed == [("succeeded", None, False)]


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
