"""What a lost task process had died of, and which tracebacks are the same."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec.structs import replace

from airflow_provider.retries.failure_case import case_of_death, signature
from airflow_provider.retries.rules import TriesRecord
from llutil.failure import FailureClass
from llutil.task_link.agent_record import AgentRecord
from llutil.task_link.messages import JobFailed, JobSucceeded
from tests.support.rendezvous_values import failure

TRACE = (
    "Traceback (most recent call last):\n"
    '  File "/dags/train.py", line 7, in train\n'
    "    raise ValueError(f'{number} is no digit')\n"
    "ValueError: 0x7f00 is no digit after 3.5 s"
)


def test_a_signature_tells_tracebacks_apart_and_not_their_numbers() -> None:
    one = signature(failure(trace=TRACE))
    assert one
    assert signature(failure(trace=TRACE.replace("0x7f00", "0x8a11").replace("3.5", "4.25"))) == one
    assert signature(failure(trace=TRACE, rank=0, pid=1, host="other", restart=2)) == one
    assert signature(failure(trace=TRACE.replace("line 7", "line 8"))) != one
    assert signature(failure(trace=TRACE.replace("digit", "letter"))) != one


def test_a_failure_after_a_step_or_without_a_word_has_no_signature() -> None:
    assert signature(failure(trace=TRACE, step=1)) == ""
    assert signature(failure()) == ""
    assert signature(None) == ""
    assert signature(failure(tail=("no such file",))) == signature(failure(tail=("no such file",)))
    assert signature(failure(tail=("no such file",))) != signature(failure(tail=("no memory",)))


HERE = "here"
OPEN = TriesRecord(life=3, try_number=2, host=HERE, open=True)
LEFT = AgentRecord(launch="2", pid=1, mark="m", grace=30, alone=True)
STOPPED = JobFailed("StoppedError", "its task is gone", FailureClass.PREEMPTION, False)


@pytest.mark.parametrize(
    ("left", "failure_class", "words"),
    [
        (None, FailureClass.INFRASTRUCTURE, "left no word on this host, here"),
        (replace(LEFT, launch="1"), FailureClass.INFRASTRUCTURE, "left no word"),
        (replace(LEFT, end=STOPPED), FailureClass.INFRASTRUCTURE, "by SIGKILL, and not for lack"),
        (replace(LEFT, alone=False), FailureClass.INFRASTRUCTURE, "its agent was lost as well"),
        (LEFT, FailureClass.INFRASTRUCTURE, "by SIGKILL"),
        (
            replace(LEFT, end=STOPPED, asked="Airflow asked the task to end"),
            FailureClass.PREEMPTION,
            "asked to end (Airflow asked",
        ),
        (
            replace(LEFT, end=STOPPED, asked="so", kills=1, counted_by="the group"),
            FailureClass.OUT_OF_MEMORY,
            "killed 1 for lack of memory, as the group counted",
        ),
        (
            replace(LEFT, end=JobFailed("X", "stuck\nlong", FailureClass.HANG, False)),
            FailureClass.HANG,
            "its job had failed: stuck",
        ),
        (
            replace(
                LEFT, end=JobFailed("WorkersFailedError", "SIGTERM", FailureClass.PREEMPTION, False)
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
    found = case_of_death(left, OPEN, HERE, 1)
    assert (found.failure_class, found.tries_left) == (failure_class, 1)
    assert found.told.startswith("the task process of try 2 was lost: ")
    assert words in found.told


def test_a_try_that_ran_on_another_host_is_said_to_have_left_its_word_there() -> None:
    assert (
        "it ran on far" in case_of_death(None, dataclasses.replace(OPEN, host="far"), HERE, 1).told
    )


def test_the_traceback_of_a_job_that_failed_before_its_task_was_lost_counts() -> None:
    raised = failure(trace=TRACE)
    end = JobFailed("WorkersFailedError", "x", FailureClass.USER_CODE, False, raised)
    found = case_of_death(replace(LEFT, end=end), OPEN, HERE, 1)
    assert found.signature == signature(raised)
