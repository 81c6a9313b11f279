"""Which process the task of this agent is, found so that no other one can be taken for it.

The parent's number does not say it: if the task is gone already, the parent is process 1 or a
supervisor of others. This module may import only the standard library and
``llutil.system.process_table``.
"""

from __future__ import annotations

import os
import socket
import struct

from llutil.system.process_table import stat_of

__all__ = ["task_process"]

# struct ucred of unix(7): the process, its user, its group.
_CREDENTIALS = struct.Struct("3i")


def task_process(sock: socket.socket) -> tuple[int, str]:
    """The process that made the socket pair of ``sock``, and its start in ticks; (0, "") if it is
    gone.

    It made the pair before it started this process. So a process of that number which is younger
    than this one is another.
    """
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, _, _ = _CREDENTIALS.unpack(credentials)
    task, own = stat_of(pid), stat_of(os.getpid())
    if task is None or own is None or not task.lives or task.start > own.start:
        return 0, ""
    return pid, str(task.start)
