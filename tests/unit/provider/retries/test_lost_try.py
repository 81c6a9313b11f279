"""What a lost task process had died of."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec.structs import replace

from airflow_provider.retries.lost_try import failure_of_lost_try
from airflow_provider.retries.rules import TriesRecord
from llutil.failure import FailureClass, JobFailure
from llutil.task_link.agent_record import AgentRecord
from llutil.task_link.messages import JobFailed, JobSucceeded
from tests.support.rendezvous_values import failure

HERE = "here"
OPEN = TriesRecord(life=3, try_number=2, host=HERE, open=True)
LEFT = AgentRecord(launch="2", pid=1, mark="m", grace_period=30, task_gone=True)
STOPPED = JobFailed(
    "StoppedError", "its task is gone", False, JobFailure(failure_class=FailureClass.PREEMPTION)
)


@pytest.mark.parametrize(
    ("left", "failure_class", "words"),
    [
        (None, FailureClass.INFRASTRUCTURE, "left no word on this host, here"),
        (replace(LEFT, launch="1"), FailureClass.INFRASTRUCTURE, "left no word"),
        (replace(LEFT, end=STOPPED), FailureClass.INFRASTRUCTURE, "by SIGKILL, and not for lack"),
        (replace(LEFT, task_gone=False), FailureClass.INFRASTRUCTURE, "its agent was lost as well"),
        (LEFT, FailureClass.INFRASTRUCTURE, "by SIGKILL"),
        (
            replace(LEFT, end=STOPPED, stop_reason="Airflow asked the task to end"),
            FailureClass.PREEMPTION,
            "asked to end (Airflow asked",
        ),
        (
            replace(LEFT, end=STOPPED, stop_reason="so", kills=1, counted_by="the group"),
            FailureClass.OUT_OF_MEMORY,
            "killed 1 for lack of memory, as the group counted",
        ),
        (
            replace(
                LEFT,
                end=JobFailed(
                    "X", "stuck\nlong", False, JobFailure(failure_class=FailureClass.HANG)
                ),
            ),
            FailureClass.HANG,
            "its job had failed: stuck",
        ),
        (
            replace(
                LEFT,
                end=JobFailed(
                    "WorkersFailedError",
                    "SIGTERM",
                    False,
                    JobFailure(failure_class=FailureClass.PREEMPTION),
                ),
            ),
            FailureClass.PREEMPTION,
            "its job had failed: SIGTERM",
        ),
        (replace(LEFT, end=JobSucceeded((0,))), FailureClass.INFRASTRUCTURE, "had succeeded"),
    ],
)
def test_a_lost_task_process_is_classified_by_what_its_agent_left(
    left: AgentRecord | None, failure_class: FailureClass, words: str
) -> None:
    found = failure_of_lost_try(left, OPEN, HERE)
    assert found.failure_class is failure_class
    assert found.why.startswith("the task process of try 2 was lost: ")
    assert words in found.why


def test_a_try_that_ran_on_another_host_is_said_to_have_left_its_word_there() -> None:
    assert (
        "it ran on far"
        in failure_of_lost_try(None, dataclasses.replace(OPEN, host="far"), HERE).why
    )


def test_a_job_that_failed_before_its_task_was_lost_is_told_with_its_rank() -> None:
    told = JobFailure.of(failure())
    end = JobFailed("WorkersFailedError", "x", False, told)
    assert failure_of_lost_try(replace(LEFT, end=end), OPEN, HERE).failure == told.failure
    other = replace(LEFT, end=end, launch="1")
    assert failure_of_lost_try(other, OPEN, HERE).failure is None, "another try's"
