"""Who keeps the state of a task, and what it says at the end."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException
from airflow.sdk.timezone import utcnow

from airflow_provider.execution.kept_state import job_state, outcome_told
from llutil.errors import StoppedError, WorkersFailedError
from llutil.launcher.config import LaunchConfig

CONFIG = LaunchConfig(1, 1, 1, run_id="r", checkpoint_path="/c", checkpoint_job="j")
LOG = logging.getLogger("t")


class PlayedState:
    def __init__(self):
        self.closed = []

    def close(self, outcome, *, succeeded):
        self.closed.append((outcome, succeeded))


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
    assert state.closed == [(outcome, False)]


def test_a_success_is_told():
    state = PlayedState()
    with outcome_told([state]):
        pass
    assert state.closed == [("succeeded", True)]


def test_an_airflow_without_a_state_for_tasks_is_told_of_once_and_does_no_harm(caplog):
    context = {"ti": SimpleNamespace(try_number=1)}
    with caplog.at_level(logging.INFO):
        assert job_state(context, CONFIG, LOG) is None
    (told,) = caplog.messages
    assert "no task_state_store, which 3.3 has" in told
