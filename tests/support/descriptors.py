"""The descriptors of the test run itself.

Earlier tests have left threads and garbage, which open and close descriptors at any moment. So a
test that counts descriptors or limits them is ``in_a_fork`` (see ``forks``). One that cannot be has
``no_descriptor_left``.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = ["few_descriptors", "no_descriptor_left", "open_descriptors"]

_PATIENCE = 30.0  # seconds


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
def no_descriptor_left() -> Iterator[None]:
    """A context whose end waits until nothing is open that was not open when it began."""
    before = _what_is_open()
    yield
    deadline = time.monotonic() + _PATIENCE
    while left := _what_is_open() - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def _what_is_open() -> set[tuple[str, Path]]:
    """The descriptors' numbers, and what they are of."""
    found = set()
    for path in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # that of the listing itself
            found.add((path.name, path.readlink()))
    return found


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
