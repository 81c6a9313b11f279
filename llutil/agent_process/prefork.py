"""One import of torch for the agent process and its workers: the fork server is forked from the
agent itself.

That takes a process without threads, and an environment in which the imports start none. This
module may import ``llutil.launcher`` and everything below it, torch among it when a server is made.
It starts no thread.
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
    from llutil.agent.start_methods.forkserver_client import ServerProcess

__all__ = ["imports_environment", "wants_server", "warm_server"]


def wants_server(config: LaunchConfig) -> bool:
    """Whether a job of ``config`` should have its fork server forked from this process.

    Not if accelerators are to be counted first: that takes another process which imports torch, and
    a server that is started afresh does so meanwhile.
    """
    known = isinstance(config.nproc_per_node, int) or config.nproc_per_node == "cpu"
    return config.start_method == "forkserver" and known and not problems_of(config)


def warm_server(
    config: LaunchConfig, environ: MutableMapping[str, str]
) -> tuple[ServerProcess, socket.socket] | None:
    """Import torch here, and fork the server; None if a thread was started meanwhile. ``environ``
    is this process's.
    """
    from llutil.agent.start_methods.forkserver_main import fork_server, import_ahead

    with imports_environment(worker_count(config.nproc_per_node), environ):
        import_ahead()
        return fork_server()


@contextmanager
def imports_environment(nproc: int, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Let torch and numpy find, when they are imported, what ``nproc`` ranks will have, but no word
    to start threads.
    """
    if nproc > 1:
        environ.setdefault("OMP_NUM_THREADS", "1")  # which stays: it is each rank's
    before = {name: environ.get(name) for name in BLAS_THREADS}
    environ.update(BLAS_THREADS)
    try:
        yield
    finally:
        for name, value in before.items():
            del environ[name]
            if value is not None:
                environ[name] = value
