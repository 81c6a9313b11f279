"""The queue of messages for the task. It also keeps sent messages that the task may not have read.

Any thread may add messages; one thread at a time sends them. This module counts the bytes of
messages and does not decode them. It imports only the standard library.
"""

from __future__ import annotations

import socket
import threading
from collections import deque

__all__ = ["SendQueue"]

_CONGESTED = 16 << 20
"""With more bytes in the queue than this, no more output should come: some 200,000 lines."""
_NOT_CONGESTED = 8 << 20
"""With at most so many bytes in the queue, workers' output may go on."""
_MANY_REPLACEABLE = 1 << 18
"""With more bytes of replaceable messages in the queue than this, none should come: minutes of
progress.
"""
_SEND_BUFFER = 1 << 15
"""Size in bytes that is asked for the socket's send buffer. It is small, because what is in it when
the task dies is lost.
"""
_MESSAGE_COST = 512
"""Bytes of the send buffer that a message takes at least (Linux counts its own overhead)."""


class SendQueue:
    """Messages to be sent over ``sock``, a socket in non-blocking mode."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        """Guards the next six."""
        self._queue: deque[tuple[bytes, bool]] = deque()
        """The messages, and whether each is replaceable."""
        self._queued = 0
        self._replaceable = 0
        """How many bytes the replaceable ones have."""
        self._head_sent = 0
        """How many bytes of the first message in the queue were sent."""
        self._closed = False
        self._unread = _Unread(sock)

    def put(self, message: bytes, *, replaceable: bool = False) -> bool:
        """Queue ``message``; False if the queue is closed. Never blocks. ``replaceable`` says that
        a newer message makes it needless.
        """
        with self._lock:
            if not self._closed:
                self._queue.append((message, replaceable))
                self._queued += len(message)
                self._replaceable += len(message) if replaceable else 0
            return not self._closed

    @property
    def empty(self) -> bool:
        """Whether every message was sent."""
        return not self._queue

    @property
    def congested(self) -> bool:
        """Whether so much waits that no more output should come."""
        return self._queued > _CONGESTED

    @property
    def not_congested(self) -> bool:
        """Whether so little waits that workers' output may go on. Between the two limits neither is
        true.
        """
        return self._queued <= _NOT_CONGESTED

    @property
    def has_many_replaceable(self) -> bool:
        """Whether so many replaceable messages wait that no more of them should come."""
        return self._replaceable > _MANY_REPLACEABLE

    def flush(self) -> bool:
        """Send as much as the socket takes now; False if the socket is broken."""
        with self._lock:
            while self._queue:
                head, replaceable = self._queue[0]
                try:
                    sent = self._sock.send(memoryview(head)[self._head_sent :])
                except BlockingIOError:
                    return True
                except OSError:
                    return False
                self._queued -= sent
                self._head_sent += sent
                if self._head_sent == len(head):
                    self._queue.popleft()
                    self._unread.add(head)
                    self._replaceable -= len(head) if replaceable else 0
                    self._head_sent = 0
        return True

    def close(self) -> bytes:
        """Accept no more messages. Return all that the task may not have read, oldest first."""
        with self._lock:
            self._closed = True
            queued = (message for message, _ in self._queue)
            unread = b"".join((*self._unread.messages, *queued))
            self._queue.clear()
            self._queued = self._replaceable = 0
        return unread


class _Unread:
    """The last messages that were sent: as many as the kernel's buffer may hold.

    When the task dies, what it has not read is lost with the buffer, and these messages tell what
    happened last. Nobody knows which of them the task has read, so some lines may be shown twice,
    but none is lost.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.messages: deque[bytes] = deque()
        self._size = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        # While the buffer is not full, Linux takes one more message of at most half its size.
        self._most_bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) * 3 // 2

    def add(self, message: bytes) -> None:
        """Remember ``message``, and forget what the task must have read by now."""
        self.messages.append(message)
        self._size += self._cost(message)
        while self._size - self._cost(self.messages[0]) > self._most_bytes:
            self._size -= self._cost(self.messages.popleft())

    @staticmethod
    def _cost(message: bytes) -> int:
        return max(len(message), _MESSAGE_COST)
