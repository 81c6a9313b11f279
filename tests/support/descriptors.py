"""The descriptors of the test run itself."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["few_descriptors", "open_descriptors"]


def open_descriptors() -> set[int]:
    """The numbers of the descriptors that are open."""
    found = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - numbers
    return {fd for fd in found if _is_open(fd)}  # without listdir's own


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextmanager
def few_descriptors(room: int) -> Iterator[None]:
    """Inside the block this process may open ``room`` more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    null = os.open(os.devnull, os.O_RDONLY)
    with ExitStack() as stack:
        stack.callback(os.close, null)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + room + 2, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        filled = []
        while True:
            try:
                filled.append(os.dup(null))
            except OSError:
                break
        for fd in filled[len(filled) - room :]:
            os.close(fd)
        for fd in filled[: len(filled) - room]:
            stack.callback(os.close, fd)
        yield
