"""``ForkServer``: starts workers by forking them from a process that has torch imported.

``forkserver_main`` runs in that process. A worker whose environment cannot be set after a fork gets
a fresh interpreter instead.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Mapping

from llutil.agent.start_methods.rank_server import ForkRefused, RankServer
from llutil.agent.start_methods.server_process import ServerProcess
from llutil.agent.start_methods.spawn_and_fork import WORKER_INTERPRETER
from llutil.agent.start_methods.starter import StartRequest, WorkerProcess, interpreter_command
from llutil.agent.worker_side.fork_environment import (
    fork_server_environment,
    unsettable_after_fork,
)

__all__ = ["ForkServer"]

_log = logging.getLogger(__name__)


class ForkServer:
    """Starts workers by forking them from a small process that has torch imported and runs no user
    code.

    ``env`` is the server's environment, except for variables that keep its libraries from starting
    threads, and one that gives it huge pages. The server is started at once, so that it imports
    while the rendezvous runs. It is started again when it has died. ``first`` is a server that runs
    already, with our end of its socket.
    """

    def __init__(
        self, env: Mapping[str, str], first: tuple[ServerProcess, socket.socket] | None = None
    ) -> None:
        self._env = dict(env)
        self._last_warning = ""
        self._server = RankServer(self._start_server, first)

    @property
    def processes(self) -> dict[int, int]:
        """See ``Starter``. The server is no worker, but it carries the job's mark."""
        return self._server.processes

    @property
    def ready(self) -> dict[int, int]:
        """See ``Starter``."""
        return self._server.ready

    def prepare(self, count: int) -> None:
        """See ``Starter``."""
        self._server.prepare(count)

    def start(self, request: StartRequest) -> WorkerProcess:
        """One more worker: a fork of the server, which is started again if it died, or else a fresh
        interpreter.

        :raises InfrastructureError: the server does not answer, or cannot start a process.
        """
        if names := unsettable_after_fork(self._env, request.env):
            return self._start_interpreter(
                request, f"{', '.join(names)} differ from what the fork server was started with"
            )
        answer = self._server.start(request)
        if isinstance(answer, ForkRefused):
            return self._start_interpreter(
                request, f"the fork server has {answer.threads} threads, which a fork would lose"
            )
        return answer

    def _start_interpreter(self, request: StartRequest, why: str) -> WorkerProcess:
        if why != self._last_warning:  # it would be the same for each rank and restart
            _log.warning("each worker gets a fresh interpreter, which starts slower: %s", why)
            self._last_warning = why
        worker = self._server.start(request, interpreter_command(WORKER_INTERPRETER))
        assert not isinstance(worker, ForkRefused)
        return worker

    def close(self) -> None:
        """End the server, and with it every worker that it started."""
        self._server.close()

    def _start_server(self) -> tuple[ServerProcess, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            call = (
                "from llutil.agent.start_methods.forkserver_main import main; "
                f"main({theirs.fileno()}, {os.getpid()})"
            )
            process = subprocess.Popen(
                interpreter_command(call),
                stdin=subprocess.DEVNULL,
                env=fork_server_environment(self._env),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return process, ours
