"""Moves one stream of one worker from its pipe to its log file and to whoever takes its lines.

It runs on the agent's loop and thread, and never waits. While the observer is congested, the worker
waits in its print, or lines are left out; the log says how many. This module may import the
standard library, ``llutil.system.line_splitter``, ``event_loop``, ``observer`` and this room.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from llutil.agent.event_loop import EventLoop
from llutil.agent.observer import AgentObserver
from llutil.agent.output.backlog import Backlog
from llutil.agent.output.log_files import open_log, write_all
from llutil.agent.output.stderr_passthrough import StderrPassthrough
from llutil.system.line_splitter import LineSplitter

__all__ = ["PipePump", "Stream"]

_log = logging.getLogger(__name__)

# Bytes read from a pipe at once.
_READ_SIZE = 1 << 18
# Bytes that a pipe can hold at most (Linux's limit for users without privileges).
_PIPE_SIZE = 1 << 20
# Seconds until a pipe is read again. Many lines at once take little more time than one, here and in
# whoever takes them, and a rank that prints all the time would keep a core busy.
_PAUSE = 0.01
# Seconds of this thread's work for one read after which it rests, so many times as long. Usual text
# takes a quarter of that; binary output, which has to be shown in escapes, takes more.
_LONG_WORK, _REST = 0.025, 4
# Bytes that are kept of a stream that only a file has, for the failure report.
_TAIL = 1 << 15
# Bytes that a pipe should hold, so that a rank that prints 20 MB in a second does not wait.
_WANTED_SIZE = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What a pump has to know of a stream.

    ``name`` is its name for people. All its bytes go to ``file``, if there is one. With ``raw``,
    they also go to the agent's own standard error, as they come: with ``at_once`` also parts of
    lines. ``shown`` says that its lines are wanted as they come; else only the last ones are, at
    its end. ``complete`` says that no line may be left out.
    """

    name: str
    file: Path | None
    raw: bool
    at_once: bool
    shown: bool
    complete: bool


class PipePump:
    """Gives the lines of ``stream``, whose pipe is ``fd``, to ``take_lines``, and writes its bytes
    to its file, until ``stack`` is closed.
    """

    def __init__(
        self,
        fd: int,
        stream: Stream,
        take_lines: Callable[[Sequence[str]], None],
        loop: EventLoop,
        observer: AgentObserver,
        stack: ExitStack,
    ) -> None:
        self._fd = fd
        self._stream = stream
        self._take_lines = take_lines
        self._loop = loop
        self._observer = observer
        self._leaves_out = observer.leaves_out and not stream.complete
        self._passthrough = (
            StderrPassthrough(loop, self._resume, at_once=stream.at_once) if stream.raw else None
        )
        self._splitter = LineSplitter()
        self._backlog = None if stream.shown else Backlog(kept=_TAIL)
        """What cannot be taken now, if lines may be left out."""
        self._rests_until = 0.0
        """Until when no more should be taken, if the rank prints faster than its lines are made."""
        self._log_fd: int | None = None
        if stream.file is not None:
            with ExitStack() as failed:
                failed.callback(os.close, fd)
                self._log_fd = open_log(stream.file)
                failed.pop_all()
            stack.callback(os.close, self._log_fd)
        os.set_blocking(fd, False)
        with suppress(OSError):  # all pipes of this user together hold as much as they may
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WANTED_SIZE)
        self._loop.watch(fd, self._on_readable)
        stack.callback(self._finish)

    def _on_readable(self) -> None:
        size = self._read()
        if size is None:
            return
        if not size or (self._passthrough is not None and self._passthrough.behind):
            self._loop.unwatch(self._fd)
        elif self._must_hold and not self._leaves_out:
            # The worker waits in its print until the observer is not congested, as it would wait
            # for a slow terminal.
            self._loop.unwatch(self._fd)
            self._observer.when_not_congested(lambda: self._loop.call_soon(self._resume))
        elif self._passthrough is None and size < _WANTED_SIZE // 2:
            self._loop.pause(self._fd, time.monotonic() + _PAUSE)

    @property
    def _must_hold(self) -> bool:
        """Whether no lines may be handed on now."""
        return self._stream.shown and self._observer.congested()

    def _resume(self) -> None:
        if self._fd >= 0:
            self._loop.watch(self._fd, self._on_readable)

    def _read(self) -> int | None:
        """Read once, and handle what was read: so many bytes, 0 at the end of the stream. None if
        there is nothing to read now.
        """
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return None
        self._write_log(data)
        if self._passthrough is not None:
            self._passthrough.feed(data)
        if self._backlog is None and self._leaves_out:
            self._begin_backlog(len(data))
        if self._backlog is not None:
            self._backlog.add(data)
        else:
            self._take_data(data)
        return len(data)

    def _begin_backlog(self, size: int) -> None:
        """Have what comes now wait, if it has to."""
        if self._must_hold:
            self._observer.when_not_congested(lambda: self._loop.call_soon(self._take_backlog))
        elif size >= _WANTED_SIZE // 2 and time.monotonic() < self._rests_until:
            # The rank would wait for its pipe.
            self._loop.call_later(self._rests_until, self._take_backlog)
        else:
            return
        self._backlog = Backlog(self._splitter.take_rest())

    def _take_data(self, data: bytes) -> None:
        began = time.thread_time()
        self._take_lines(self._splitter.feed(data, time.monotonic()))
        took = time.thread_time() - began
        if took > _LONG_WORK:
            self._rests_until = time.monotonic() + _REST * took

    def _take_backlog(self) -> None:
        """Hand on what was printed while nobody could take it: its end, if it was too much."""
        backlog, self._backlog = self._backlog, None
        if backlog is None:
            return
        if backlog.size and self._stream.shown:
            what = f"{backlog.size:,} bytes of one line"
            if backlog.lines:
                what = f"{backlog.lines:,} lines ({backlog.size:,} bytes)"
            file = f"see {self._stream.file}"
            if self._log_fd is None:
                file = "no file has them (tee, log_lines)"
            _log.warning(
                "%s of %s left out here, as they come faster than the log takes them; %s",
                what,
                self._stream.name,
                file,
            )
        self._take_data(backlog.kept)

    def _write_log(self, data: bytes) -> None:
        """Write to the log file. If the disk is full, the log ends and the job goes on: the console
        has the lines too.
        """
        if self._log_fd is None:
            return
        try:
            write_all(self._log_fd, data)
        except OSError as error:
            self._log_fd = None  # the stack closes it
            _log.error("the log of %s ends here: %s", self._stream.name, error.strerror)

    def _finish(self) -> None:
        self._loop.unwatch(self._fd)
        # Read at most what the pipe held when the job ended: an escaped process may go on writing.
        for _ in range(_PIPE_SIZE // _READ_SIZE):
            if not self._read():
                break
        self._take_backlog()
        if self._passthrough is not None:
            self._passthrough.close()
        self._take_lines(self._splitter.finish())
        os.close(self._fd)
        self._fd = -1
