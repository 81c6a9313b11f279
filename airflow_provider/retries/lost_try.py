"""Finds out why the task process of an earlier try was killed. Airflow calls no retry policy then.

Functions here only read values. This module may import nothing but the standard library,
``llutil.failure`` and ``airflow_provider.retries.rules``. It gets values of
``llutil.task_link.agent_record``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider.retries.rules import TriesRecord
from llutil.failure import FailureClass, JobFailure

if TYPE_CHECKING:
    from llutil.task_link.agent_record import AgentRecord

__all__ = ["failure_of_lost_try"]


def failure_of_lost_try(left: AgentRecord | None, record: TriesRecord, host: str) -> JobFailure:
    """What went wrong in the open try of ``record``, whose task process was killed.

    It is read from what the try's agent has written on this ``host``. The first of these that
    applies:

    * the job had failed by itself before the task was gone;
    * the kernel had killed processes for lack of memory;
    * the task had been asked to end, and was killed since it took longer than Airflow's five
      seconds: the worker was stopped, or the task lost its heartbeat;
    * a SIGKILL of somebody else, or the loss of the whole worker.
    """
    found = _found(left, record, host)
    return replace(found, why=f"the task process of try {record.try_number} was lost: {found.why}")


def _found(left: AgentRecord | None, record: TriesRecord, host: str) -> JobFailure:
    if left is None or left.launch != str(record.try_number):
        elsewhere = f"; it ran on {record.host}" if record.host not in {"", host} else ""
        return _lost(f"its agent has left no word on this host, {host}{elsewhere}")
    if left.failed is not None:
        report = left.failed.report.partition("\n")[0]
        return replace(left.failed.job_failure, why=f"its job had failed: {report}")
    if left.kills:
        why = f"the kernel had killed {left.kills} for lack of memory, as {left.counted_by} counted"
        return JobFailure(why=why, failure_class=FailureClass.OUT_OF_MEMORY)
    if left.stop_reason:
        why = f"it had been asked to end ({left.stop_reason})"
        return JobFailure(why=why, failure_class=FailureClass.PREEMPTION)
    if left.succeeded:
        return _lost("its job had succeeded, and its results went with it")
    if left.end is None and not left.task_gone:
        return _lost("its agent was lost as well")
    return _lost("by SIGKILL, and not for lack of memory")


def _lost(why: str) -> JobFailure:
    return JobFailure(why=why, failure_class=FailureClass.INFRASTRUCTURE)
