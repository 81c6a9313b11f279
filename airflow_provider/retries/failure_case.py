"""What a failure was: of a task process that nobody was asked about, and whether two tracebacks are
the same.

Functions here only read values that are given to them. This module may import nothing but the
standard library, ``llutil.errors``, ``llutil.failure`` and ``airflow_provider.retries.rules``; of
``llutil.task_link.agent_record`` it gets values.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from airflow_provider.retries.rules import FailureCase, TriesRecord
from llutil.failure import Failure, FailureClass

if TYPE_CHECKING:
    from llutil.task_link.agent_record import AgentRecord

__all__ = ["case_of_death", "signature"]

_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


def case_of_death(
    left: AgentRecord | None, record: TriesRecord, host: str, tries_left: int
) -> FailureCase:
    """What it was that killed the task process of the try that ``record`` says is open, of which
    nobody was asked.

    By what the try's agent has left on this ``host``, where it knows anything:

    * how the job had ended by itself, before the task was gone;
    * else that the kernel had killed for lack of memory;
    * else that the task had been asked to end, and was killed when it took longer than Airflow's
      five seconds: the worker was stopped, or the task lost its heartbeat;
    * else somebody's SIGKILL, or the loss of the whole worker.
    """

    def case(failure_class: FailureClass, told: str, of: str = "") -> FailureCase:
        told = f"the task process of try {record.try_number} was lost: {told}"
        return FailureCase(
            failure_class=failure_class,
            told=told,
            signature=of,
            tries_left=tries_left,
            asked=False,
        )

    if left is None or left.launch != str(record.try_number):
        elsewhere = f"; it ran on {record.host}" if record.host not in {"", host} else ""
        return case(
            FailureClass.INFRASTRUCTURE,
            f"its agent has left no word on this host, {host}{elsewhere}",
        )
    if left.failed is not None:
        report = left.failed.report.partition("\n")[0]
        return case(
            left.failed.failure_class,
            f"its job had failed: {report}",
            signature(left.failed.failure),
        )
    if left.kills:
        return case(
            FailureClass.OUT_OF_MEMORY,
            f"the kernel had killed {left.kills} for lack of memory, as {left.counted_by} counted",
        )
    if left.asked:
        return case(FailureClass.PREEMPTION, f"it had been asked to end ({left.asked})")
    if left.succeeded:
        return case(
            FailureClass.INFRASTRUCTURE, "its job had succeeded, and its results went with it"
        )
    if left.end is None and not left.alone:
        return case(FailureClass.INFRASTRUCTURE, "its agent was lost as well")
    return case(FailureClass.INFRASTRUCTURE, "by SIGKILL, and not for lack of memory")


def signature(failure: Failure | None) -> str:
    """A short text that is equal for failures with the same traceback, if no rank had made a step;
    else empty.

    Frames count with file, line and function. In all other lines numbers do not: addresses, times
    and process numbers differ from one try to the next. A failure of which there are no words has
    no signature.
    """
    if failure is None or failure.step > 0:
        return ""
    lines = failure.trace.splitlines() or failure.tail
    if not lines:
        return ""
    same = "\n".join(
        line.strip() if line.lstrip().startswith('File "') else _NUMBERS.sub("#", line.strip())
        for line in (failure.reason.partition("\n")[0] if not failure.trace else "", *lines)
    )
    return hashlib.sha256(same.encode(errors="replace")).hexdigest()[:16]
