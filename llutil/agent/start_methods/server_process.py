"""A rank server's process, as its parent sees it.

This module may import only the standard library and ``llutil.system``.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Protocol

from llutil.system.send_signal import send_signal_by_pidfd

__all__ = ["ForkedServerProcess", "ServerProcess", "await_end"]


class ServerProcess(Protocol):
    """A rank server's process, as its parent sees it; ``subprocess.Popen`` is one."""

    @property
    def pid(self) -> int:
        """Its process number."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def kill(self) -> None:
        """SIGKILL, if it has not been reaped."""


class ForkedServerProcess:
    """A rank server that this process has forked itself."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._status: int | None = None

    @property
    def pid(self) -> int:
        """See ``ServerProcess``."""
        return self._pid

    def poll(self) -> int | None:
        """See ``ServerProcess``."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # another wait in this process took the status
                pid, status = self._pid, signal.SIGKILL
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self) -> None:
        """See ``ServerProcess``."""
        if self.poll() is None:  # so its number is still its own
            pidfd = os.pidfd_open(self._pid)
            send_signal_by_pidfd(pidfd, signal.SIGKILL)
            os.close(pidfd)


def await_end(process: ServerProcess, seconds: float) -> bool:
    """Wait at most ``seconds`` for the end of ``process``, and reap it; whether it has ended."""
    if process.poll() is None:
        pidfd = os.pidfd_open(process.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(1000 * seconds)
        os.close(pidfd)
    return process.poll() is not None
