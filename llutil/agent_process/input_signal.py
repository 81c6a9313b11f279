"""Calls a function as soon as there is something to read, by a signal and so without a thread.

This module may import only the standard library.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["called_by_input"]


@contextmanager
def called_by_input(fd: int, start: Callable[[], None]) -> Iterator[None]:
    """Inside this block, ``start`` is called as soon as there is something to read from the socket
    ``fd``: at once, or by a signal handler. For the main thread, which runs the handlers.
    """
    # SIGIO also comes when the other side has read something: ask whether there is input.
    poll = select.poll()
    poll.register(fd, select.POLLIN)

    def start_if_input() -> None:
        if poll.poll(0):
            start()

    before = signal.signal(signal.SIGIO, lambda *_: start_if_input())
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        start_if_input()  # something may have come before the handler was installed
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        signal.signal(signal.SIGIO, before)
