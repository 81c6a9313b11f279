"""The workers of one rank server: what they ended with, and when each is reaped.

A rank server imports it before its first worker starts, so it imports little: of the standard
library nothing like ``dataclasses`` or ``typing``, and of ours only ``llutil.system``. It never
waits.
"""

from __future__ import annotations

import contextlib
import os
import select

from llutil.system.process_table import children_of_this_process

__all__ = ["Children"]


class Children:
    """The workers that were started and are not reaped yet.

    The exit status of a worker goes into a pipe to the agent. The worker is reaped when the agent
    has closed its end of that pipe. Until then the worker's number, which is also its session's,
    must not be given to another process.
    """

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._running: dict[int, tuple[int, int]] = {}
        """Pid and status pipe, by pidfd."""
        self._ending: set[int] = set()
        """The pidfds of those whose status is not written yet, though they have ended."""
        self._ended: dict[int, int] = {}
        """Pid, by status pipe."""

    def add(self, pid: int, status_fd: int) -> int:
        """Write the exit status of ``pid`` to ``status_fd`` when it ends; a descriptor of it."""
        pidfd = os.pidfd_open(pid)
        self._running[pidfd] = pid, status_fd
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def on_ready(self, fd: int) -> None:
        """One of the registered descriptors is ready."""
        self._poll.unregister(fd)
        if fd in self._running:
            self._ending.add(fd)
        else:
            os.waitpid(self._ended.pop(fd), os.WNOHANG)  # one that runs on is reaped as adopted
            os.close(fd)

    def tell_statuses(self) -> None:
        """Write the status of each worker that has ended. A debugger that is attached to one gets
        it first, so then it is looked for again.
        """
        for pidfd in tuple(self._ending):
            pid, status_fd = self._running[pidfd]
            status = _exit_status_of(pid)
            if status is None:
                continue
            del self._running[pidfd]
            self._ending.remove(pidfd)
            os.close(pidfd)
            with contextlib.suppress(BrokenPipeError):  # the agent has closed its end
                os.write(status_fd, str(status).encode())
            self._ended[status_fd] = pid
            self._poll.register(status_fd, 0)  # no events: poll still reports a closed reader

    def reap_adopted(self) -> None:
        """Reap what was adopted and has ended: nobody else can."""
        workers = {*(pid for pid, _ in self._running.values()), *self._ended.values()}
        for pid in children_of_this_process():
            if pid not in workers:
                os.waitpid(pid, os.WNOHANG)

    def fds(self) -> set[int]:
        """Descriptors that another worker must not keep."""
        return {*self._running, *(fd for _, fd in self._running.values()), *self._ended}


def _exit_status_of(pid: int) -> int | None:
    """The exit status of the child ``pid``, which stays unreaped; None while it runs."""
    end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if end is None:
        return None
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
