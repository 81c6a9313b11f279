"""The last message of a job that has failed: what the task is told of an error.

This module may import torch, inside of functions.
"""

from __future__ import annotations

import signal
import sys
import traceback

from llutil.errors import LaunchError, StoppedError
from llutil.failure import FailureClass, JobFailure
from llutil.task_link.messages import JobFailed

__all__ = ["message_for", "stopped_message"]

_OF_SIGNALS = "torch.distributed.elastic.multiprocessing.api"
"""torch's module of ``SignalException``. Without it no agent has run."""


def stopped_message(text: str) -> JobFailed:
    """The job was stopped, as ``text`` says."""
    return _failed(StoppedError(text))


def message_for(error: BaseException, stop_reason: str | None) -> JobFailed:
    """The message that tells the task of ``error``. ``stop_reason`` is why the agent was asked to
    stop; None if it was not.
    """
    if isinstance(error, LaunchError):
        return _failed(error)
    if _OF_SIGNALS not in sys.modules:  # also where torch cannot be imported, as ``error`` says
        return _unexpected(error)
    from torch.distributed.elastic.multiprocessing.api import SignalException

    from llutil.agent.failures.report import WorkersFailed

    match error:
        case WorkersFailed(job_failure=failure):
            return JobFailed("WorkersFailedError", str(error), False, failure)
        case SignalException(sigval=sigval):
            reason = stop_reason or f"the agent got signal {signal.Signals(sigval).name}"
            return stopped_message(f"the job was stopped: {reason}")
        case _:
            return _unexpected(error)


def _unexpected(error: BaseException) -> JobFailed:
    text = "".join(traceback.format_exception(error))
    failure = JobFailure(why=repr(error), failure_class=FailureClass.INFRASTRUCTURE)
    return JobFailed(type(error).__name__, text, False, failure)


def _failed(error: LaunchError) -> JobFailed:
    return JobFailed(type(error).__name__, str(error), error.retryable, error.job_failure)
