"""Builds what starts the workers of a launch: a starter for its start method.

It is the fork server of the caller's ``warm_workers`` block, if the launch can use that one. This
module imports torch only through a fork server's process.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llutil.launcher.request import LaunchRequest
from llutil.launcher.shared_forkserver import SharedForkServer, shared_fork_server

if TYPE_CHECKING:
    from llutil.agent.start_methods.forkserver_client import ForkServer
    from llutil.agent.start_methods.server_process import ServerProcess
    from llutil.agent.start_methods.starter import Starter

__all__ = ["new_starter", "take_shared_server", "warn_of_fork"]

_log = logging.getLogger(__name__)


def take_shared_server(
    request: LaunchRequest, nproc: int, stack: ExitStack
) -> tuple[ForkServer, SharedForkServer] | None:
    """The fork server of the caller's ``warm_workers`` block, and what has it; None if this launch
    cannot use it.
    """
    shared = shared_fork_server()
    if shared is None or request.config.start_method != "forkserver" or request.mark:
        return None
    server = shared.take(_workers_environment(nproc))
    if server is None:
        return None
    stack.callback(shared.give_back, nproc)
    return server, shared


def _workers_environment(nproc: int) -> dict[str, str]:
    """The environment of a fork server for these workers. Libraries read OMP_NUM_THREADS when the
    server imports them, before there is a worker.
    """
    env = dict(os.environ)
    if nproc > 1:
        env.setdefault("OMP_NUM_THREADS", "1")
    return env


def new_starter(
    method: str,
    direct: Callable[[], Any] | None,
    *,
    inherited: Callable[[], set[int]],
    nproc: int,
    mark: str,
    server: tuple[ServerProcess, socket.socket] | None,
    on_copy: Callable[[], None] = lambda: None,
) -> Starter:
    """The starter for the start method ``method``. ``direct`` is the function that a fork calls,
    ``inherited`` returns the descriptors that it must not keep, and ``on_copy`` is called in the
    copy of this process that it is made from. ``server`` is a fork server that runs already.
    """
    from llutil.agent.start_methods.forkserver_client import ForkServer
    from llutil.agent.start_methods.spawn_and_fork import Fork, Spawn
    from llutil.system.job_mark import MARK_VARIABLE

    match method:
        case "fork":
            return Fork(direct, inherited, on_copy)
        case "forkserver":
            # /proc/<pid>/environ of a forked worker shows the server's environment, so the server
            # must have the mark.
            return ForkServer(_workers_environment(nproc) | {MARK_VARIABLE: mark}, server)
        case "spawn":
            return Spawn({**os.environ, MARK_VARIABLE: mark})
        case _:
            raise ValueError(f"there is no starter for start_method {method!r}")


@functools.cache
def warn_of_fork() -> None:
    """Once in the life of a process."""
    _log.warning(
        "start_method is 'fork': every rank has a copy of this process's memory, and so the "
        "store's password; 'spawn' and 'forkserver' keep it from them"
    )
