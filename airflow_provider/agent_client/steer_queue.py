"""Flags that somebody in the task's process wants to be raised, on their way to the agent's socket.

This module may import only the standard library and ``llutil.task_link.messages``.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Sequence

from llutil.task_link.messages import Steer, encode

__all__ = ["SteerQueue"]

_LONGEST_REASON = 1000
"""Characters of a reason. A message so short is taken by a socket as a whole, or not at all."""


class SteerQueue:
    """Any thread may ``put``; one thread waits for its descriptor to be readable, and sends."""

    def __init__(self) -> None:
        self._waiting: deque[Steer] = deque()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        """Guards the descriptor: its number may be another file's once it is closed."""

    def fileno(self) -> int:
        """A descriptor that is readable when something was put."""
        return self._fd

    def put(self, flags: Sequence[str], why: str) -> None:
        """Queue the flags. Once the queue is closed, nobody gets them."""
        self._waiting.append(Steer(tuple(flags), why[:_LONGEST_REASON]))
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def taken(self) -> None:
        """Make the descriptor unreadable, until something is put."""
        os.eventfd_read(self._fd)

    def send(self, sock: socket.socket) -> None:
        """Send what waits. What does not go now waits for the next call."""
        while self._waiting:
            try:
                sock.send(encode(self._waiting[0]))
            except BlockingIOError:
                return
            except OSError:  # the agent is gone, which whoever reads from it notices
                pass
            self._waiting.popleft()

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            fd, self._fd = self._fd, -1
            os.close(fd)
