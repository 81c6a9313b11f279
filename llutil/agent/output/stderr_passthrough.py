"""Writes what ranks print to the agent's own standard error, as it comes, and never waits for a
reader.

A paused terminal, or a pipe that nobody reads, must not block the agent. So while nothing more can
be written, the rank's pipe is not read, and the rank waits in its print as it would on the terminal
itself. This module may import nothing but the standard library and ``event_loop``.
"""

from __future__ import annotations

import os
import select
import selectors
import time
from collections.abc import Callable
from contextlib import suppress

from llutil.agent.event_loop import EventLoop

__all__ = ["StderrPassthrough"]

_STDERR = 2
# Bytes that a descriptor that is ready for writing takes without blocking (pipe(7), PIPE_BUF).
_WRITE_SIZE = 4096
# Seconds that the last output takes at most, however slowly it is read.
_CLOSE_TIMEOUT = 1.0


class StderrPassthrough:
    """Writes one rank's standard error to the agent's. ``drained`` is called when ``behind``
    becomes false.

    Whole lines are written, so that lines of several ranks do not mix. A progress bar that redraws
    itself ends no line, and is written as it comes. With ``at_once``, all is written as it comes: a
    prompt ends no line either.
    """

    def __init__(
        self, loop: EventLoop, drained: Callable[[], None], *, at_once: bool = False
    ) -> None:
        self._loop = loop
        self._drained = drained
        self._at_once = at_once
        self._line = b""
        """The beginning of a line whose end has not come yet."""
        self._pending = b""
        self._fd = -1
        with suppress(OSError):  # standard error is closed: nothing can be written
            self._fd = os.dup(_STDERR)

    @property
    def behind(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._pending)

    def feed(self, data: bytes) -> None:
        """Take what the rank printed."""
        whole = len(data) if self._at_once or b"\r" in data else data.rfind(b"\n") + 1
        if whole == 0 and len(self._line) + len(data) <= _WRITE_SIZE:
            self._line += data
            return
        whole = whole or len(data)  # the line is too long to be written in one piece
        self._write(self._line + data[:whole])
        self._line = data[whole:]

    def close(self) -> None:
        """Write what is left, as far as a reader takes it within a second."""
        if self._fd < 0:
            return
        self._loop.unwatch(self._fd)
        self._write(self._line, time.monotonic() + _CLOSE_TIMEOUT)
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _write(self, data: bytes, deadline: float | None = None) -> None:
        self._pending += data
        try:
            while self._pending and self._is_writable(deadline):
                written = os.write(self._fd, self._pending[:_WRITE_SIZE])
                self._pending = self._pending[written:]
        except BlockingIOError:
            pass  # a terminal may report that it is ready although it is not
        except OSError:  # the reader is gone, or the disk is full; the job goes on
            self._pending = b""
        if self._pending and self._fd >= 0:
            # KeyError: the loop watches it already. PermissionError: a file cannot be watched, and
            # need not be.
            with suppress(KeyError, PermissionError):
                self._loop.watch(self._fd, self._go_on, selectors.EVENT_WRITE)

    def _is_writable(self, deadline: float | None) -> bool:
        """Whether something can be written: now, or at any time until ``deadline``."""
        if self._fd < 0:
            raise BrokenPipeError
        left = 0.0 if deadline is None else deadline - time.monotonic()
        if left < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(left * 1000))

    def _go_on(self) -> None:
        self._loop.unwatch(self._fd)
        self._write(b"")
        if not self.behind:
            self._drained()
