"""The agent's own standard error, for what ranks print there: passed on as it comes, and never
waited for.

A terminal that is paused, or a pipe that nobody reads, must not keep the agent from what it is
there for. So as long as nothing more can be written, the rank is not read from, and waits in its
print as it would on the terminal itself. This module may import nothing but the standard library
and the room's ``loop``.
"""

from __future__ import annotations

import os
import select
import selectors
from collections.abc import Callable
from contextlib import suppress

from llutil.agent.event_loop import EventLoop

__all__ = ["StderrPassthrough"]

_STDERR = 2
_AT_ONCE = (
    4096  # bytes: what is ready for writing takes so many without waiting (pipe(7), PIPE_BUF)
)
_LAST = 1000  # milliseconds that the last words wait for a reader


class StderrPassthrough:
    """One rank's way to standard error. ``drained`` is called when it is no longer ``behind``.

    Whole lines are written, so that those of several ranks do not tear one another. A bar that
    redraws itself is no line, and is written as it comes.
    """

    def __init__(self, loop: EventLoop, drained: Callable[[], None]) -> None:
        self._loop = loop
        self._drained = drained
        self._line = b""
        """The beginning of a line whose end has not come."""
        self._pending = b""
        self._fd = -1
        with suppress(OSError):  # it is closed: then there is nothing to write to
            self._fd = os.dup(_STDERR)

    @property
    def behind(self) -> bool:
        """Whether something waits for its reader."""
        return bool(self._pending)

    def feed(self, data: bytes) -> None:
        """Take what the rank printed."""
        whole = len(data) if b"\r" in data else data.rfind(b"\n") + 1
        if whole == 0 and len(self._line) + len(data) <= _AT_ONCE:
            self._line += data
            return
        whole = whole or len(data)  # it is no line that fits anywhere
        self._write(self._line + data[:whole])
        self._line = data[whole:]

    def close(self) -> None:
        """Write what is left, as far as somebody takes it within a second."""
        if self._fd < 0:
            return
        self._loop.unwatch(self._fd)
        self._write(self._line, _LAST)
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _write(self, data: bytes, patience: int = 0) -> None:
        self._pending += data
        try:
            while self._pending and self._is_writable(patience):
                written = os.write(self._fd, self._pending[:_AT_ONCE])
                self._pending = self._pending[written:]
        except BlockingIOError:
            pass  # a terminal may say that it is ready, and then not be
        except OSError:  # its reader is gone, or its disk full, which ends no job
            self._pending = b""
        if self._pending and self._fd >= 0:
            with suppress(
                KeyError, PermissionError
            ):  # it waits already; a file never makes one wait
                self._loop.watch(self._fd, self._go_on, selectors.EVENT_WRITE)

    def _is_writable(self, patience: int) -> bool:
        if self._fd < 0:
            raise BrokenPipeError
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(patience))

    def _go_on(self) -> None:
        self._loop.unwatch(self._fd)
        self._write(b"")
        if not self.behind:
            self._drained()
