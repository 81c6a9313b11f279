"""The threads of the test run itself.

Those that were there before are left out: one of an earlier test may end at any moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["new_threads", "no_thread_left"]

_PATIENCE = 30.0  # seconds


@contextmanager
def new_threads() -> Iterator[Callable[[], set[threading.Thread]]]:
    """Which threads live that were not there when the context began."""
    before = set(threading.enumerate())
    yield lambda: set(threading.enumerate()) - before


@contextmanager
def no_thread_left() -> Iterator[None]:
    """A context whose end waits for the threads that were started in it: one that has said its
    last word ends a moment later.
    """
    with new_threads() as found:
        yield
        deadline = time.monotonic() + _PATIENCE
        while left := found():
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
