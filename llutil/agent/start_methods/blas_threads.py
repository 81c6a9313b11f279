"""numpy's thread pool, imported with one thread so that it could be forked: found, and given its
threads back.

OpenBLAS has a call for that, though no Python name: it is looked up in the libraries that this
process has mapped. Other BLAS libraries start their threads when they are first used, and read the
environment then. This module may import nothing but the standard library and ``environment``.
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
"""What OpenBLAS' call is named, by who built it (numpy's and scipy's wheels have a prefix and a
suffix).
"""


def thread_count() -> int:
    """How many threads this process has, Python's or not."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - only their number is wanted


class BlasPools:
    """The pools of the libraries that are loaded now. To find them takes a millisecond, so that is
    done before a fork.
    """

    def __init__(self) -> None:
        self._setters: list[Callable[[int], object]] = []
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
        libraries = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "openblas" in line}
        for path in sorted(libraries):
            try:
                library = ctypes.CDLL(path)
            except OSError:  # a file that is no library, or was replaced since
                continue
            setters = (getattr(library, name, None) for name in _SETTERS)
            self._setters += [setter for setter in setters if setter is not None]

    def tell(self, environ: Mapping[str, str]) -> None:
        """Give the pools the size that they would have, had their libraries been imported in
        ``environ``.
        """
        threads = blas_threads(environ, len(os.sched_getaffinity(0)))
        if threads > 1:  # one is what they have
            for setter in self._setters:
                setter(threads)
