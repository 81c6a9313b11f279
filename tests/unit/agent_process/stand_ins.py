"""What an agent process is given by its task, for tests that are no agent process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

__all__ = ["HeldByThisThread", "streams"]


class HeldByThisThread:
    """In the place of the lock that ``threading.Thread.start`` takes: this thread holds it already,
    as if a signal handler had interrupted it in the middle of another ``start``.
    """

    def __init__(self) -> None:
        self._holder = threading.get_ident()
        self._lock = threading.Lock()

    @contextmanager
    def patched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patches:
            patches.setattr(threading, "_active_limbo_lock", self)
            yield

    def __enter__(self) -> None:
        assert threading.get_ident() != self._holder, "a deadlock"
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


@contextmanager
def streams() -> Iterator[tuple[int, int]]:
    """Pipes in the place of standard output and error, as an agent has them; their read ends.

    No fixture: pytest would put its own in their place before the test begins.
    """
    with ExitStack() as stack:
        readers = []
        for stream in (1, 2):
            kept = os.dup(stream)
            read, write = os.pipe()
            stack.callback(os.close, read)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, stream)
            os.dup2(write, stream)
            os.close(write)
            readers.append(read)
        yield readers[0], readers[1]
