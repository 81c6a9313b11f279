"""What the process of a try died of, if nobody was asked about it.

Functions here only read values that are given to them. This module may import nothing but the
standard library, ``llutil.failure`` and ``airflow_provider.retries.rules``; of
``llutil.task_link.agent_record`` it gets values.
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
    """What went wrong in the try that ``record`` says is open: its task process was killed, and
    nobody was asked.

    By what the try's agent has left on this ``host``, where it knows anything:

    * how the job had ended by itself, before the task was gone;
    * else that the kernel had killed for lack of memory;
    * else that the task had been asked to end, and was killed when it took longer than Airflow's
      five seconds: the worker was stopped, or the task lost its heartbeat;
    * else somebody's SIGKILL, or the loss of the whole worker.
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
