"""Notices an ``async_save`` of torch's DCP that goes on behind, though nobody was given its future.

Without this, the checkpoint would count before it is written. This module may import the standard
library and its own room.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from llutil.checkpoints.attempt import Attempt

__all__ = ["untold_save_problem"]

_DCP_THREAD = "AsyncCheckpointExecutor"
"""How torch 2.13 names the thread of an ``async_save``; it ends with the upload."""
_log = logging.getLogger(__name__)


def untold_save_problem(
    before: Collection[threading.Thread], attempt: Attempt, timeout: float
) -> str:
    """Wait for saves whose threads were not there ``before``, so many seconds at most. What is
    wrong with them; empty if there was none, or they are well.
    """
    untold = [
        thread
        for thread in set(threading.enumerate()).difference(before)
        if thread.name.startswith(_DCP_THREAD)
    ]
    if not untold:
        return ""
    _log.warning(
        "the context of step %d waits for async_save; give what it returns to "
        "folder.after(...), and training goes on meanwhile",
        attempt.step,
    )
    deadline = time.monotonic() + timeout
    for thread in untold:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in untold):
        return f"still goes on {timeout:g} s later"
    try:
        return "" if attempt.has_metadata() else "has failed: it left no .metadata"
    except OSError as error:
        return f"cannot be looked at: {error}"
