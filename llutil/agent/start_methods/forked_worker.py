"""The first code of a worker that is a fork of its rank server.

It makes of the fork what a fresh interpreter would be: the working directory, the standard streams,
the environment, the descriptors. This module may import ``worker_side`` and what lies below it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from llutil.agent.start_methods.blas_threads import BlasPools
from llutil.agent.start_methods.worker_start import WorkerStart
from llutil.agent.worker_side import worker_main
from llutil.agent.worker_side.program_end import forget_parent
from llutil.agent.worker_side.work_order import WorkOrder, read_order, write_order
from llutil.entrypoint import Command
from llutil.serialization import functions

__all__ = ["rehearse", "run_forked_worker"]


def run_forked_worker(
    start: WorkerStart,
    *,
    direct: Callable[[], Any] | None = None,
    pools: BlasPools | None = None,
) -> NoReturn:
    """Become the worker; see ``worker_main`` for ``direct``. ``pools`` get the threads that the
    worker's environment gives them.
    """
    os.fchdir(start.cwd_fd)
    _replace_standard_streams(start.stdin, start.stdout, start.stderr)
    for fd in start.server_fds:
        os.close(fd)
    os.environ.clear()
    os.environ.update(start.env)

    def set_threads(order: WorkOrder) -> None:
        if pools is not None and not isinstance(order.entrypoint, Command):
            pools.set_threads(start.env)

    worker_main.run_forked(start.order_fd, start.outcome_fd, direct, set_threads, start.shared_fd)


def _replace_standard_streams(stdin: int | None, stdout: int | None, stderr: int | None) -> None:
    """Connect this process's standard streams, and Python's objects for them, to these
    descriptors.
    """
    if stdin is None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
    else:
        os.dup2(stdin, 0)
    sys.stdin = os.fdopen(0, closefd=False)  # without the parent's buffer
    if stdout is not None:
        os.dup2(stdout, 1)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False, errors="backslashreplace")
    if stderr is not None:
        os.dup2(stderr, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")


def rehearse() -> None:
    """Do what a worker does before the user's code, as far as it leaves nothing behind.

    A fork has its parent's memory, page by page, until it writes to a page. So the pages that a
    worker's first code writes to are copied now, while nobody waits for it.
    """
    forget_parent()
    env = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    call = functions.pickle_call(os.getpid, [], {})
    order = WorkOrder(entrypoint=call, sys_path=tuple(sys.path), result_limit=None)
    fd = write_order(order)
    read_order(fd)
    os.close(fd)
    functions.load_call(call)
