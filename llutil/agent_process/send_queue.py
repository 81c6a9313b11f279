"""The messages for the task: queued, sent as fast as it reads, and kept while they may be unread.

Any thread queues; one thread at a time sends. This module does nothing with the messages but count
their bytes, and imports nothing of ours.
"""

from __future__ import annotations

import socket
import threading
from collections import deque

__all__ = ["SendQueue"]

_CONGESTED = 4 << 20
"""Bytes waiting for the task, at which workers' output waits too."""
_CLEAR = 1 << 20
"""Bytes below which it flows again."""
_BUFFER = 1 << 15
"""Bytes that the kernel is asked to hold for the task: what it holds may never be read."""
_MESSAGE_COST = 512
"""Bytes of that which even a small message takes (Linux counts its own overhead)."""


class SendQueue:
    """What is to be sent over ``sock``, which does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        """Guards the next four."""
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._head_sent = 0
        """Bytes of the first message of the queue that were sent."""
        self._closed = False
        self._unread = _Unread(sock)

    def put(self, message: bytes) -> bool:
        """Queue ``message``; False if the queue is closed. Never blocks."""
        with self._lock:
            if not self._closed:
                self._queue.append(message)
                self._queued += len(message)
            return not self._closed

    @property
    def empty(self) -> bool:
        """Whether all was sent."""
        return not self._queue

    @property
    def congested(self) -> bool:
        """Whether so much waits that workers should wait with more output."""
        return self._queued > _CONGESTED

    @property
    def clear(self) -> bool:
        """Whether so little waits that output may flow again."""
        return self._queued <= _CLEAR

    def flush(self) -> bool:
        """Send what the socket takes now; False if it is broken."""
        with self._lock:
            while self._queue:
                head = self._queue[0]
                try:
                    sent = self._sock.send(memoryview(head)[self._head_sent :])
                except BlockingIOError:
                    return True
                except OSError:
                    return False
                self._queued -= sent
                self._head_sent += sent
                if self._head_sent == len(head):
                    self._unread.add(self._queue.popleft())
                    self._head_sent = 0
        return True

    def close(self) -> bytes:
        """Take no more messages; all that the task may not have read, the oldest first."""
        with self._lock:
            self._closed = True
            unread = b"".join((*self._unread.messages, *self._queue))
            self._queue.clear()
            self._queued = 0
        return unread


class _Unread:
    """The last messages that were sent, as many as may have been in the kernel when the task died.

    They would be lost with it, and they are the ones that tell what happened last. Which of them
    the task has read is not known: some lines may be told twice, but none is lost.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.messages: deque[bytes] = deque()
        self._size = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        # Linux lets one more message in while the buffer is not full, of at most half its size.
        self._most = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) * 3 // 2

    def add(self, message: bytes) -> None:
        """Remember ``message``, and forget what must have been read by now."""
        self.messages.append(message)
        self._size += self._cost(message)
        while self._size - self._cost(self.messages[0]) > self._most:
            self._size -= self._cost(self.messages.popleft())

    @staticmethod
    def _cost(message: bytes) -> int:
        return max(len(message), _MESSAGE_COST)
