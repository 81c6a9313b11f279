"""The one selector of an agent, and what is called when something it waits for is ready.

Everything that can happen to a job is a file descriptor here: a worker's exit (a pidfd), its
outcome and its output (pipes), a signal (the wake-up pipe). So nothing is polled and nothing needs
a thread. The loop owns no descriptor but its wake-up pipe, decides nothing, and never waits past
the deadline that it is given.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

__all__ = ["EventLoop"]

# Seconds that one turn waits at most: the kernel's own limit is 24 days, and it refuses more.
_LONGEST = 3600.0


class EventLoop:
    """Callbacks by file descriptor. Used by one thread; others may call only ``wake`` and
    ``call_soon``.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._soon: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open = True
        # Who wakes a loop that is just being closed must not write into what gets its number next.
        # Reentrant, since a signal handler may interrupt the very thread that has it.
        self._lock = threading.RLock()
        self.watch(self._wake_read, self._drain_wake)

    def watch(
        self, fd: int, callback: Callable[[], None], events: int = selectors.EVENT_READ
    ) -> None:
        """Call ``callback`` whenever ``fd`` is ready, until ``unwatch``."""
        self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Wait for ``fd`` no more. Does nothing if it was not waited for."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def fds(self) -> set[int]:
        """Every descriptor that belongs to the loop or is waited for; a forked child must close
        them.
        """
        fds = {key.fd for key in self._selector.get_map().values()}
        fds |= {self._wake_write}
        if isinstance(self._selector, selectors.EpollSelector):
            fds.add(self._selector.fileno())
        return fds

    def wake(self) -> None:
        """Make a waiting ``turn`` return; of a closed loop, nothing. Safe from any thread and a
        signal handler.
        """
        with self._lock, suppress(BlockingIOError):  # enough wake-ups are on their way
            if self._open:
                os.write(self._wake_write, b"\0")

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Have the loop's own thread call ``callback`` in its next turn. Safe from any thread."""
        self._soon.append(callback)
        self.wake()

    def turn(self, deadline: float) -> None:
        """Wait for the first thing that is ready, or until ``deadline`` (``time.monotonic()``);
        call what is due.

        It may return with nothing to do: callers look at their own state, and take another turn.
        """
        timeout = min(max(0.0, deadline - time.monotonic()), _LONGEST)
        while self._soon:
            self._soon.popleft()()
        for key, _ in self._selector.select(timeout):
            # A callback may have unwatched what another one of this turn was about.
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def until(self, done: Callable[[], bool], deadline: float) -> bool:
        """Take turns until ``done()`` or the deadline; says whether it was done."""
        while not done():
            if time.monotonic() >= deadline:
                return False
            self.turn(deadline)
        return True

    def close(self) -> None:
        """Give back the loop's own descriptors. What was watched stays open: others own it."""
        with self._lock:
            self._open = False
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def __enter__(self) -> EventLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _drain_wake(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
