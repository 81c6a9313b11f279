"""What the error means with which torch's agent ended: the end of the job, or of one node.

An agent shuts its rendezvous down while its error passes by, in a ``finally`` (torch 2.13,
``launcher/api.py``). That is the one moment in which the rendezvous can learn why it ended. This
module imports torch.
"""

from __future__ import annotations

import socket
from typing import Any

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError

from llutil.failure import Failure, FailureClass, JobFailure
from llutil.system.exit_status import exit_text

__all__ = ["failure_of_job"]

# Characters.
_LONGEST_REASON = 500
_LONGEST_TRACE = 4000


def failure_of_job(error: BaseException, group_rank: int) -> JobFailure | None:
    """What all nodes are to be told of ``error``, with which the agent of the node ``group_rank``
    ended. None: only this node is gone.

    A signal concerns this node alone. So does a connection that is lost, to the store or to the
    others.
    """
    match error:
        case ChildFailedError():
            rank, failed = error.get_first_failure()
            return JobFailure.of(_failure(rank, failed, group_rank), fatal=True)
        case SignalException() | RendezvousError() | DistError():
            return None
        case Exception():
            why = f"its agent ended with {type(error).__name__}: {error}"
            return JobFailure(
                why=why[:_LONGEST_REASON], failure_class=FailureClass.INFRASTRUCTURE, fatal=True
            )
        case _:
            return None  # KeyboardInterrupt, SystemExit


def _failure(rank: int, failed: ProcessFailure, group_rank: int) -> Failure:
    reason, trace = _said(failed)
    return Failure(
        rank=rank,
        local_rank=failed.local_rank,
        pid=failed.pid,
        exit_status=failed.exitcode,
        failure_class=FailureClass.USER_CODE,
        reason=reason[:_LONGEST_REASON],
        trace=trace[-_LONGEST_TRACE:],
        group_rank=group_rank,
        host=socket.gethostname(),
    )


def _said(failed: ProcessFailure) -> tuple[str, str]:
    """What the rank wrote into its error file, in one line, and its traceback."""
    message: Any = failed.message
    if failed.error_file_data.get("message") is not message:  # torch made a text up
        return exit_text(failed.exitcode), ""
    trace = ""
    if isinstance(message, dict):
        trace = str(message.get("extraInfo", {}).get("py_callstack", ""))
        message = message.get("message", "")
    lines = str(message).strip().splitlines()
    return (lines[0] if lines else exit_text(failed.exitcode)), trace
