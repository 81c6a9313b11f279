"""The agent's only selector: callbacks for everything that it waits for.

Everything that can happen to a job makes a file descriptor ready: a worker's exit (a pidfd), its
outcome and its output (pipes), a signal (the wake-up pipe). So nothing is polled and no thread is
needed. The loop owns no descriptor but its wake-up pipe. It decides nothing, and never waits past
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

# Seconds that one turn waits at most. The kernel refuses more than 24 days.
_LONGEST_WAIT = 3600.0


class EventLoop:
    """Callbacks by file descriptor. One thread uses the loop; other threads may call only ``wake``
    and ``call_soon``.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._soon: deque[Callable[[], None]] = deque()
        self._next = float("inf")
        self._repeat: tuple[float, Callable[[], None]] | None = None
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._paused: dict[int, tuple[float, selectors.SelectorKey]] = {}
        """What is not looked at for a while, by descriptor: until when, and how it is watched."""
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open = True
        # Without the lock, ``wake`` could write to a descriptor that ``close`` has just closed and
        # whose number another file has got. Reentrant: a signal handler may call ``wake`` while the
        # same thread holds the lock.
        self._lock = threading.RLock()
        self.watch(self._wake_read, self._drain_wake)

    def watch(
        self, fd: int, callback: Callable[[], None], events: int = selectors.EVENT_READ
    ) -> None:
        """Call ``callback`` whenever ``fd`` is ready, until ``unwatch``."""
        self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Stop waiting for ``fd``. Does nothing if it is not watched, or the loop is closed."""
        self._paused.pop(fd, None)
        if fd in (self._selector.get_map() or ()):
            self._selector.unregister(fd)

    def pause(self, fd: int, until: float) -> None:
        """Do not look at ``fd``, which is watched, until then (``time.monotonic()``)."""
        self._paused[fd] = until, self._selector.unregister(fd)

    def fds(self) -> set[int]:
        """Every descriptor that the loop owns or watches. A forked child must close them."""
        fds = {key.fd for key in self._selector.get_map().values()}
        fds |= {self._wake_write, *self._paused}
        if isinstance(self._selector, selectors.EpollSelector):
            fds.add(self._selector.fileno())
        return fds

    def wake(self) -> None:
        """Make a waiting ``turn`` return; does nothing if the loop is closed. Safe from any thread
        and from a signal handler.
        """
        with self._lock, suppress(BlockingIOError):  # the pipe is full of wake-ups already
            if self._open:
                os.write(self._wake_write, b"\0")

    @property
    def wake_fd(self) -> int:
        """Whatever is written to this descriptor makes a waiting ``turn`` return."""
        return self._wake_write

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Have the loop's own thread call ``callback`` in its next turn. Safe from any thread."""
        self._soon.append(callback)
        self.wake()

    def repeat(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` every so many seconds while somebody waits, until ``repeat_no_more``. A
        loop does that with one callback.
        """
        self._repeat, self._next = (seconds, callback), time.monotonic() + seconds

    def repeat_no_more(self) -> None:
        """Forget what was to be repeated."""
        self._repeat, self._next = None, float("inf")

    def call_later(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` in the first turn after then (``time.monotonic()``)."""
        self._later.append((when, callback))

    def turn(self, deadline: float) -> None:
        """Wait until something is ready, or until ``deadline`` (``time.monotonic()``); call the
        callbacks of what is ready.

        It may return although nothing happened. Callers look at their own state, and call it again.
        """
        now = time.monotonic()
        due = [callback for when, callback in self._later if when <= now]
        self._later = [one for one in self._later if one[0] > now]
        for callback in due:
            callback()
        if due:
            deadline = now  # whoever waits for what they have done looks
        deadline = min([deadline, *(when for when, _ in self._later)])
        for fd, (until, key) in list(self._paused.items()):
            deadline = min(deadline, until)
            if until <= now:
                del self._paused[fd]
                self._selector.register(fd, key.events, key.data)
        timeout = min(max(0.0, min(deadline, self._next) - now), _LONGEST_WAIT)
        while self._soon:
            self._soon.popleft()()
        for key, _ in self._selector.select(timeout):
            # An earlier callback of this turn may have unwatched it.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        if self._repeat is not None and time.monotonic() >= self._next:
            seconds, callback = self._repeat
            self._next = time.monotonic() + seconds
            callback()

    def until(self, done: Callable[[], bool], deadline: float) -> bool:
        """Call ``turn`` until ``done()`` is true or the deadline has passed. Returns whether it was
        done.
        """
        while not done():
            if time.monotonic() >= deadline:
                return False
            self.turn(deadline)
        return True

    def close(self) -> None:
        """Close the loop's own descriptors. Those that were watched stay open: others own them."""
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
