"""One stream of one worker on its way: from the pipe that the worker writes into to its log file
and its reader.

Lives on the agent's loop and thread, and never waits: a host that has not caught up makes the
worker wait in its print. It imports the standard library, ``llutil.system.line_splitter`` and
its neighbours of the loop.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from llutil.agent.event_loop import EventLoop
from llutil.agent.observer import AgentObserver
from llutil.agent.output.stderr_passthrough import StderrPassthrough
from llutil.system.line_splitter import LineSplitter

__all__ = ["PipePump"]

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18  # bytes read from a pipe at once
_PIPES_MOST = 1 << 20  # bytes that a pipe can hold at most (Linux's limit for the unprivileged)


class PipePump:
    """Takes a pipe's lines to ``take``, and all of its bytes to the log ``copy``, until ``owner``
    is closed.

    ``name`` is what the log's end is reported under. ``raw``: the bytes also go to the agent's own
    standard error, as they come.
    """

    def __init__(
        self,
        fd: int,
        take: Callable[[Iterable[str]], None],
        name: str,
        copy: int | None,
        loop: EventLoop,
        observer: AgentObserver,
        owner: ExitStack,
        *,
        raw: bool,
    ) -> None:
        self._take = take
        self._name = name
        self._through = StderrPassthrough(loop, self._resume) if raw else None
        self._fd = fd
        self._copy = copy
        self._splitter = LineSplitter()
        self._loop = loop
        self._observer = observer
        os.set_blocking(fd, False)
        self._loop.watch(fd, self._on_readable)
        owner.callback(self._finish)

    def _on_readable(self) -> None:
        if not self._read() or (self._through is not None and self._through.behind):
            self._loop.unwatch(self._fd)
        elif self._observer.congested():
            # The worker waits in its print until the host has caught up, as it would on a slow
            # terminal.
            self._loop.unwatch(self._fd)
            self._observer.when_not_congested(lambda: self._loop.call_soon(self._resume))

    def _resume(self) -> None:
        if self._fd >= 0:
            self._loop.watch(self._fd, self._on_readable)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        self._keep(data)
        if self._through is not None:
            self._through.feed(data)
        self._take(self._splitter.feed(data, time.monotonic()))
        return bool(data)

    def _keep(self, data: bytes) -> None:
        """Write to the log file. A full disk costs the log and not the job: the console has the
        lines too.
        """
        if self._copy is None:
            return
        try:
            os.write(self._copy, data)
        except OSError as error:
            self._copy = None  # its descriptor is the worker's to close
            _log.error("the log of %s ends here: %s", self._name, error.strerror)

    def _finish(self) -> None:
        self._loop.unwatch(self._fd)
        # At most what the pipe held when the job ended: somebody who got away may go on writing.
        for _ in range(_PIPES_MOST // _CHUNK):
            if not self._read():
                break
        if self._through is not None:
            self._through.close()
        self._take(self._splitter.finish())
        os.close(self._fd)
        self._fd = -1
