"""The only way in which this project signals a process: no stranger is ever hit.

A number that came from a file, from a record or from ``/proc`` may be another process's by now. So
it is never used alone. ``send_signal`` opens a descriptor of the process (pidfd_open(2)), which no
other process can take over, and then compares the start time. Process 1, process 0 and negative
numbers, which mean groups or everybody, are never signalled.

This module may import only the standard library and ``llutil.system.process_table``. It never
raises for a process that is gone or that may not be signalled: it says so.
"""

from __future__ import annotations

import errno
import os
import signal
from enum import Enum

from llutil.system.process_table import stat_of

__all__ = ["STOP_SIGNALS", "Sent", "send_signal", "send_signal_by_pidfd"]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""The signals that ask a job to stop: the list that torch 2.13 handles by default."""

_INIT = 1
# What pidfd_open(2) fails with if there is no such process: it has ended (ESRCH), or the number is
# that of a thread (EINVAL, or ENOENT since Linux 6.16).
_NO_PROCESS = (errno.ESRCH, errno.EINVAL, errno.ENOENT)
# The flag PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), since Linux 6.9.
_PROCESS_GROUP = 1 << 2


class Sent(Enum):
    """What became of a signal."""

    DONE = "done"
    GONE = "the process has ended, or its number is another's"
    REFUSED = "this user may not signal it"


def send_signal(pid: int, start: int, number: int, *, group: bool = False) -> Sent:
    """Send the signal ``number`` to the process ``pid`` that started at ``start`` (ticks).

    With ``group``, send it to the process group that the process leads. One that leads none gets
    it alone.

    :raises OSError: whether there is such a process is unknown: no descriptor is free, for example.
    """
    if pid <= _INIT:
        return Sent.REFUSED
    try:
        pidfd = os.pidfd_open(pid)
    except PermissionError:  # a sandbox forbids the call
        return Sent.REFUSED
    except OSError as error:
        if error.errno not in _NO_PROCESS:
            raise
        return Sent.GONE
    try:
        stat = stat_of(pid)
        if stat is None or stat.start != start:
            return Sent.GONE
        return send_signal_by_pidfd(pidfd, number, pid if group and stat.group == pid else 0)
    finally:
        os.close(pidfd)


def send_signal_by_pidfd(pidfd: int, number: int, group: int = 0) -> Sent:
    """Send the signal ``number`` to the process that ``pidfd`` is a descriptor of.

    ``group`` is its number if it leads a process group, all of which should get the signal.
    """
    try:
        if group:
            _send_to_group(pidfd, number, group)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return Sent.GONE
    except PermissionError:
        return Sent.REFUSED
    return Sent.DONE


def _send_to_group(pidfd: int, number: int, group: int) -> None:
    if group <= _INIT:
        raise PermissionError(f"{group} is no process group of a job")
    try:
        signal.pidfd_send_signal(pidfd, number, None, _PROCESS_GROUP)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # An older kernel. While the leader is not reaped, the number is nobody else's.
        signal.pidfd_send_signal(pidfd, 0)
        os.killpg(group, number)
