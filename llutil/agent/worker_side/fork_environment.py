"""What of a worker's environment comes too late in a process that was forked, and which of that can
be made up for.

Most variables are read when they are needed, and a forked worker has its own. Some are read once:
by the dynamic linker and the interpreter when they start, by torch, numpy and their thread pools
when they are imported. A worker forked from a process that has done all that gets what that process
had. Its fork server has the same environment as the worker, as a rule; where it has not, the worker
needs an interpreter of its own, unless the library can still be told (see ``threads``). This module
is pure and imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BLAS_THREADS", "blas_threads", "too_late", "torch_threads"]

BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's BLAS starts threads when it is imported unless told not to, and a process with threads
must not fork.
"""

_READ_ONCE = (
    # The dynamic linker, the C library and the interpreter.
    *("LD_", "GLIBC_", "MALLOC_", "LC_", "LANG", "TZ", "PYTHON"),
    # Thread pools and numeric libraries, when they are loaded.
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NPY_", "NUMPY_"),
    # torch, when it is imported: logging, allocators, dispatch (2.13).
    *("TORCH_", "PYTORCH_", "ATEN_", "KINETO_"),
    "TMPDIR",
)
"""How the names of variables begin that are read once."""

_READ_LATER = ("TORCH_NCCL_", "TORCH_GLOO_", "TORCH_DISABLE_SHARE_RDZV")
"""Exceptions to that: torch reads them when a process group or a store is made."""

_ORDER = (
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_DEFAULT_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OMP_NUM_THREADS",
)
"""Where OpenBLAS looks for its number of threads, in its order (0.3)."""


def too_late(server: Mapping[str, str], worker: Mapping[str, str]) -> list[str]:
    """The variables, by name, that a worker forked from a process with the environment ``server``
    cannot get any more.
    """
    return sorted(
        name
        for name in server.keys() | worker.keys()
        if server.get(name) != worker.get(name)
        and name.startswith(_READ_ONCE)
        and not name.startswith(_READ_LATER)
        and not _can_be_told(name, worker)
    )


def _can_be_told(name: str, worker: Mapping[str, str]) -> bool:
    if name == "OMP_NUM_THREADS":
        return torch_threads(worker) is not None
    return name in _ORDER


def torch_threads(environ: Mapping[str, str]) -> int | None:
    """How many threads ``environ`` gives torch; None if it does not say, or in a way that only
    OpenMP understands.
    """
    return _count(environ.get("OMP_NUM_THREADS", ""))


def blas_threads(environ: Mapping[str, str], cores: int) -> int:
    """How many threads OpenBLAS would start in a process with ``environ`` that may use
    ``cores``.
    """
    counts = (_count(environ.get(name, "")) for name in _ORDER)
    return min(next((count for count in counts if count), cores), cores)


def _count(text: str) -> int | None:
    # OMP_NUM_THREADS may hold a number for each level of nesting.
    first = text.split(",", maxsplit=1)[0].strip()
    return int(first) if first.isascii() and first.isdecimal() and int(first) > 0 else None
