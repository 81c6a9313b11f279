"""What becomes of a process when its parent ends: Linux lets it choose (prctl(2)).

This module may import only the standard library.
"""

from __future__ import annotations

import os
import signal

__all__ = ["adopt_orphans", "die_with_parent"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    It uses PR_SET_PDEATHSIG, with SIGKILL. torch uses SIGINT, which does nothing if this process
    inherited that it is ignored. ``parent`` is the pid of the process that started this one: if it
    is gone already, this process ends at once.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        signal.raise_signal(signal.SIGKILL)


def adopt_orphans() -> None:
    """Have the kernel give this process, and not process 1, every orphan that descends from it.

    It uses PR_SET_CHILD_SUBREAPER, which children do not inherit. Only a process that is all ours
    may do this: a user's program would find children that it never started.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    import ctypes  # not at the top: not everybody who imports this module needs it at once

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
