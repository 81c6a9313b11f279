"""Forks the fork server from the agent process, so that one import of torch serves both.

A process may be forked safely only while it has one thread. So the imports run in an environment in
which libraries start no threads. This module may import ``llutil.launcher`` and everything below
it; making a server imports torch. It starts no thread.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llutil.agent.worker_side.fork_environment import BLAS_THREADS
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.launcher.device_count import worker_count

if TYPE_CHECKING:
    from llutil.agent.start_methods.server_process import ServerProcess

__all__ = ["import_environment", "prefork_server", "should_prefork"]


def should_prefork(config: LaunchConfig) -> bool:
    """Whether the fork server of a job of ``config`` should be forked from this process.

    "fork" is no different: ranks must not have what the agent has in its memory later. It should
    not if accelerators must be counted first. Counting imports torch in another process, and a fork
    server that is a fresh interpreter imports it at the same time.
    """
    known = isinstance(config.nproc_per_node, int) or config.nproc_per_node == "cpu"
    return config.start_method in {"fork", "forkserver"} and known and not problems_of(config)


def prefork_server(
    config: LaunchConfig, environ: MutableMapping[str, str]
) -> tuple[ServerProcess, socket.socket] | None:
    """Import torch here, and fork the server; None if a second thread has started. ``environ`` is
    this process's environment.
    """
    from llutil.agent.start_methods.forkserver_main import fork_server, import_ahead

    with import_environment(worker_count(config.nproc_per_node), environ):
        import_ahead()
        return fork_server()


@contextmanager
def import_environment(nproc: int, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Set the variables that torch and numpy read when they are imported: to what ``nproc`` ranks
    will have, but with one BLAS thread inside the block, so that no thread is started.
    """
    if nproc > 1:
        # Not reset afterwards: each rank has this value.
        environ.setdefault("OMP_NUM_THREADS", "1")
    before = {name: environ.get(name) for name in BLAS_THREADS}
    environ.update(BLAS_THREADS)
    try:
        yield
    finally:
        for name, value in before.items():
            del environ[name]
            if value is not None:
                environ[name] = value
