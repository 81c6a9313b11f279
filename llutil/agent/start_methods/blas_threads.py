"""Gives numpy's thread pool its threads after a fork. Before the fork it was imported with one
thread, so that the process could be forked.

OpenBLAS has a function for that, but no Python name for it. It is looked up in the libraries that
this process has mapped. Other BLAS libraries start their threads when they are first used, and read
the environment then. This module may import nothing but the standard library and
``worker_side.fork_environment``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from llutil.agent.worker_side.fork_environment import blas_threads

__all__ = ["BlasPools", "thread_count"]

_SETTERS = tuple(
    f"{prefix}openblas_set_num_threads{suffix}"
    for prefix in ("", "scipy_")
    for suffix in ("", "64_")
)
"""The names of OpenBLAS' function. Builds differ: numpy's and scipy's wheels have a prefix and a
suffix.
"""


def thread_count() -> int:
    """How many threads this process has, Python's or not."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - only their number is wanted


class BlasPools:
    """The OpenBLAS libraries that are loaded now. Finding them takes a millisecond, so it is done
    before a fork.
    """

    def __init__(self) -> None:
        self._setters: list[Callable[[int], object]] = []
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
        libraries = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "openblas" in line}
        for path in sorted(libraries):
            try:
                library = ctypes.CDLL(path)
            except OSError:  # the file is no library, or was replaced after it was loaded
                continue
            setters = (getattr(library, name, None) for name in _SETTERS)
            self._setters += [setter for setter in setters if setter is not None]

    def set_threads(self, environ: Mapping[str, str]) -> None:
        """Give the pools the size that they would have if their libraries had been imported in
        ``environ``.
        """
        threads = blas_threads(environ, len(os.sched_getaffinity(0)))
        if threads > 1:  # they have one already
            for setter in self._setters:
                setter(threads)
