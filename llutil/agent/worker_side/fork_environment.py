"""Which environment variables can no longer be set in a process that was forked.

Most variables are read when they are needed, and a forked worker has its own. Some are read once:
by the dynamic linker and the interpreter when they start, by torch, numpy and their thread pools
when they are imported. In a forked worker these have the values of the process that it was forked
from. Usually the fork server has the same environment as its workers. If a variable that is read
once differs, the worker needs a fresh interpreter, unless the library can be told later (see
``blas_threads`` and ``torch_threads``). This module is pure and imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "BLAS_THREADS",
    "READ_ONCE",
    "blas_threads",
    "fork_server_environment",
    "read_before",
    "torch_threads",
    "unsettable_after_fork",
]

BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""Keeps numpy's BLAS from starting threads when it is imported. A process with several threads must
not fork.
"""

_HUGE_PAGES = "glibc.malloc.hugetlb"
"""The setting by which glibc's malloc asks for huge pages (2.35, ``madvise(2)``)."""

_READ_BY_LIBRARIES = (
    # Thread pools and numeric libraries, when they are loaded.
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NPY_", "NUMPY_"),
    # torch, when it is imported: logging, allocators, dispatch (2.13).
    *("TORCH_", "PYTORCH_", "ATEN_", "KINETO_"),
)
"""Beginnings of the names of variables that libraries read once, when they are loaded."""

READ_ONCE = (
    # The dynamic linker, the C library and the interpreter.
    *("LD_", "GLIBC_", "MALLOC_", "LC_", "LANG", "TZ", "PYTHON"),
    *_READ_BY_LIBRARIES,
    "TMPDIR",
)
"""The same of all variables that are read once."""

_READ_LATER = ("TORCH_NCCL_", "TORCH_GLOO_", "TORCH_DISABLE_SHARE_RDZV")
"""Exceptions to that: torch reads them when a process group or a store is made."""

_BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_DEFAULT_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OMP_NUM_THREADS",
)
"""The variables that OpenBLAS reads its number of threads from, in its order (0.3)."""


def fork_server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment to start a fork server with, for workers that inherit ``environ``.

    Its C heap, most of what an import of torch allocates, lies on huge pages, where the kernel
    gives them to programs that ask (``transparent_hugepage/enabled`` is ``madvise``). For each
    worker that memory is mapped at its fork, and unmapped at its end; with 40 pages instead of
    20,000 both take half the time. Who has set that setting keeps it. Workers do not inherit the
    variable, but their memory of 2 MiB and more is on huge pages too, as numpy's arrays always are.
    """
    settings = environ.get("GLIBC_TUNABLES", "")
    if _HUGE_PAGES not in settings:
        settings = ":".join(filter(None, (settings, f"{_HUGE_PAGES}=1")))
    return {**environ, **BLAS_THREADS, "GLIBC_TUNABLES": settings}


def unsettable_after_fork(server: Mapping[str, str], worker: Mapping[str, str]) -> list[str]:
    """The names of the variables of ``worker`` that can no longer be set in a process forked from
    one with the environment ``server``.
    """
    return sorted(
        name
        for name in server.keys() | worker.keys()
        if server.get(name) != worker.get(name)
        and name.startswith(READ_ONCE)
        and not name.startswith(_READ_LATER)
        and not _settable_after_fork(name, worker)
    )


def read_before(started: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of the variables that a forked process, started with the environment ``started``,
    has set itself, though libraries had read them before.
    """
    return sorted(
        name
        for name, value in now.items()
        if started.get(name) != value
        and name.startswith(_READ_BY_LIBRARIES)
        and not name.startswith(_READ_LATER)
    )


def _settable_after_fork(name: str, worker: Mapping[str, str]) -> bool:
    if name == "OMP_NUM_THREADS":
        return torch_threads(worker) is not None
    return name in _BLAS_VARIABLES


def torch_threads(environ: Mapping[str, str]) -> int | None:
    """How many threads ``environ`` gives torch; None if it does not say, or says it in a form that
    only OpenMP understands.
    """
    return _count(environ.get("OMP_NUM_THREADS", ""))


def blas_threads(environ: Mapping[str, str], cores: int) -> int:
    """How many threads OpenBLAS would start in a process with ``environ`` that may use ``cores``
    CPUs.
    """
    counts = (_count(environ.get(name, "")) for name in _BLAS_VARIABLES)
    return min(next((count for count in counts if count), cores), cores)


def _count(text: str) -> int | None:
    # OMP_NUM_THREADS may hold a list: a number for each level of nested parallel regions.
    first = text.split(",", maxsplit=1)[0].strip()
    return int(first) if first.isascii() and first.isdecimal() and int(first) > 0 else None
