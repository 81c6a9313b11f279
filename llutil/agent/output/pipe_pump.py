"""Moves one stream of one worker from its pipe to its log file and to whoever takes its lines.

It runs on the agent's loop and thread, and never waits. If the observer is congested, the pipe is
not read, and the worker waits in its print. This module may import the standard library,
``llutil.system.line_splitter``, ``event_loop``, ``observer`` and this room.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from llutil.agent.event_loop import EventLoop
from llutil.agent.observer import AgentObserver
from llutil.agent.output.log_files import write_all
from llutil.agent.output.stderr_passthrough import StderrPassthrough
from llutil.system.line_splitter import LineSplitter

__all__ = ["PipePump"]

_log = logging.getLogger(__name__)

# Bytes read from a pipe at once.
_READ_SIZE = 1 << 18
# Seconds until a pipe is read again. Many lines at once take little more time than one, here and in
# whoever takes them, and a rank that prints all the time would keep a core busy.
_PAUSE = 0.01
# Bytes that a pipe should hold, so that a rank that prints 20 MB in a second does not wait.
_WANTED_SIZE = 1 << 18
# Bytes that a pipe can hold at most (Linux's limit for users without privileges).
_PIPE_SIZE = 1 << 20


class PipePump:
    """Gives a pipe's lines to ``take_lines`` and writes all its bytes to the log file ``log_fd``,
    until ``stack`` is closed.

    ``name`` names the stream in a log line about a full disk. With ``raw``, the bytes also go to
    the agent's own standard error, as they come: with ``at_once`` also parts of lines.
    """

    def __init__(
        self,
        fd: int,
        take_lines: Callable[[Sequence[str]], None],
        name: str,
        log_fd: int | None,
        loop: EventLoop,
        observer: AgentObserver,
        stack: ExitStack,
        *,
        raw: bool,
        at_once: bool,
    ) -> None:
        self._take_lines = take_lines
        self._name = name
        self._passthrough = StderrPassthrough(loop, self._resume, at_once=at_once) if raw else None
        self._fd = fd
        self._log_fd = log_fd
        self._splitter = LineSplitter()
        self._loop = loop
        self._observer = observer
        os.set_blocking(fd, False)
        with suppress(OSError):  # all pipes of this user together hold as much as they may
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WANTED_SIZE)
        self._loop.watch(fd, self._on_readable)
        stack.callback(self._finish)

    def _on_readable(self) -> None:
        size = self._read()
        if not size or (self._passthrough is not None and self._passthrough.behind):
            self._loop.unwatch(self._fd)
        elif self._observer.congested():
            # The worker waits in its print until the observer is not congested, as it would wait
            # for a slow terminal.
            self._loop.unwatch(self._fd)
            self._observer.when_not_congested(lambda: self._loop.call_soon(self._resume))
        elif self._passthrough is None and size < _WANTED_SIZE // 2:
            self._loop.pause(self._fd, time.monotonic() + _PAUSE)

    def _resume(self) -> None:
        if self._fd >= 0:
            self._loop.watch(self._fd, self._on_readable)

    def _read(self) -> int:
        """Read once, and handle what was read: so many bytes."""
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return 0
        self._write_log(data)
        if self._passthrough is not None:
            self._passthrough.feed(data)
        self._take_lines(self._splitter.feed(data, time.monotonic()))
        return len(data)

    def _write_log(self, data: bytes) -> None:
        """Write to the log file. If the disk is full, the log ends and the job goes on: the console
        has the lines too.
        """
        if self._log_fd is None:
            return
        try:
            write_all(self._log_fd, data)
        except OSError as error:
            self._log_fd = None  # not closed here: ``Worker`` owns the descriptor
            _log.error("the log of %s ends here: %s", self._name, error.strerror)

    def _finish(self) -> None:
        self._loop.unwatch(self._fd)
        # Read at most what the pipe held when the job ended: an escaped process may go on writing.
        for _ in range(_PIPE_SIZE // _READ_SIZE):
            if not self._read():
                break
        if self._passthrough is not None:
            self._passthrough.close()
        self._take_lines(self._splitter.finish())
        os.close(self._fd)
        self._fd = -1
