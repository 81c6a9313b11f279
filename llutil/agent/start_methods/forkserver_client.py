"""The agent's side of a fork server: ``ForkServer`` starts workers from a process that has torch
imported.

It keeps the server process, sends it requests over a socket, and starts another when it has died.
``forkserver_main`` runs in that process. A worker whose environment cannot be set after a fork gets
a fresh interpreter instead.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from llutil.agent.start_methods.spawn_and_fork import (
    Spawn,
    StartRequest,
    WorkerProcess,
    interpreter_command,
)
from llutil.agent.worker_side.fork_environment import BLAS_THREADS, unsettable_after_fork
from llutil.errors import InfrastructureError
from llutil.system.send_signal import Sent, send_signal_by_pidfd
from llutil.time_budgets import HELPER_ENDED

__all__ = ["ForkServer", "ForkedServerProcess", "ServerProcess"]

_log = logging.getLogger(__name__)

# Seconds for the fork server to import torch and answer, on a loaded host.
_ANSWER_TIMEOUT = 120.0


class ServerProcess(Protocol):
    """A fork server's process, as its parent sees it; ``subprocess.Popen`` is one."""

    @property
    def pid(self) -> int:
        """Its process number."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def kill(self) -> None:
        """SIGKILL, if it has not been reaped."""


class ForkedServerProcess:
    """A fork server that this process has forked itself; see ``forkserver_main.fork_server``."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._status: int | None = None

    @property
    def pid(self) -> int:
        """See ``ServerProcess``."""
        return self._pid

    def poll(self) -> int | None:
        """See ``ServerProcess``."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # another wait in this process took the status
                pid, status = self._pid, signal.SIGKILL
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self) -> None:
        """See ``ServerProcess``."""
        if self.poll() is None:  # so its number is still its own
            pidfd = os.pidfd_open(self._pid)
            send_signal_by_pidfd(pidfd, signal.SIGKILL)
            os.close(pidfd)


def _await_end(server: ServerProcess) -> None:
    """Wait for the end of a server that was killed, and reap it."""
    if server.poll() is not None:
        return  # another process may have its number by now
    pidfd = os.pidfd_open(server.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(1000 * HELPER_ENDED)
    finally:
        os.close(pidfd)
    if server.poll() is None:
        _log.warning(
            "the fork server, process %d, still exists %g s after SIGKILL", server.pid, HELPER_ENDED
        )


class _ServerChild:
    """A worker that is a child of the fork server. The server writes the worker's exit status into
    a pipe.
    """

    def __init__(self, pid: int, start: int, pidfd: int, exit_fd: int) -> None:
        self.pid = pid
        self.start = start
        self.exit_fd = exit_fd
        self._pidfd = pidfd
        self._status: int | None = None
        os.set_blocking(exit_fd, False)

    def poll(self) -> int | None:
        """See ``WorkerProcess``."""
        if self._status is None:
            try:
                text = os.read(self.exit_fd, 64)
            except BlockingIOError:
                return None
            # The pipe is closed without a status: the server was killed, and its children with it.
            self._status = int(text) if text else -9
        return self._status

    def send_signal(self, number: int, *, group: bool) -> Sent:
        """See ``WorkerProcess``."""
        return send_signal_by_pidfd(self._pidfd, number, self.pid if group else 0)

    def close(self) -> None:
        """See ``WorkerProcess``."""
        os.close(self.exit_fd)
        os.close(self._pidfd)


@dataclass(frozen=True, slots=True)
class _RefusedForThreads:
    """The server's answer that it has ``count`` threads, and so does not fork."""

    count: int


class ForkServer:
    """Starts workers by forking them from a small process that has torch imported and runs no user
    code.

    ``env`` is the server's environment, except for variables that keep its libraries from starting
    threads. The server is started at once, so that it imports while the rendezvous runs. It is
    started again when it has died. ``first`` is a server that runs already, with our end of its
    socket.
    """

    def __init__(
        self, env: Mapping[str, str], first: tuple[ServerProcess, socket.socket] | None = None
    ) -> None:
        self._env = dict(env)
        self._server: ServerProcess | None = None
        self._socket: socket.socket | None = None
        self._spawn = Spawn()
        self._last_warning = ""
        if first is not None:
            self._server, self._socket = first
        self._ensure_server()

    @property
    def pids(self) -> frozenset[int]:
        """The server's pid. It is no worker, but it carries the job's mark."""
        return frozenset({self._server.pid} if self._server is not None else ())

    def start(self, request: StartRequest) -> WorkerProcess:
        """One more worker: a child of the server, which is started again if it died, or else a
        fresh interpreter.

        :raises InfrastructureError: the server does not answer.
        """
        if names := unsettable_after_fork(self._env, request.env):
            return self._start_interpreter(
                request, f"{', '.join(names)} differ from what the fork server was started with"
            )
        for attempt in (1, 2):
            channel = self._ensure_server()
            try:
                answer = self._ask(channel, request)
            except (OSError, EOFError) as error:
                self.close()
                if attempt == 2:
                    raise InfrastructureError(
                        f"the fork server did not start a worker: {error!r}"
                    ) from error
                continue
            if isinstance(answer, _RefusedForThreads):
                return self._start_interpreter(
                    request, f"the fork server has {answer.count} threads, which a fork would lose"
                )
            return answer
        raise AssertionError("unreachable")

    def _start_interpreter(self, request: StartRequest, why: str) -> WorkerProcess:
        if why != self._last_warning:  # it would be the same for each rank and restart
            _log.warning("each worker gets a fresh interpreter, which starts slower: %s", why)
            self._last_warning = why
        return self._spawn.start(request)

    def close(self) -> None:
        """End the server, and with it every worker that it forked."""
        if self._socket is not None:
            self._socket.close()  # the server ends when its socket does
            self._socket = None
        if self._server is not None:
            self._server.kill()
            _await_end(self._server)
            self._server = None

    def _ensure_server(self) -> socket.socket:
        if self._server is not None and self._server.poll() is not None:
            self.close()
        if self._socket is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                call = (
                    "from llutil.agent.start_methods.forkserver_main import main; "
                    f"main({theirs.fileno()}, {os.getpid()})"
                )
                self._server = subprocess.Popen(
                    interpreter_command(call),
                    stdin=subprocess.DEVNULL,
                    env={**self._env, **BLAS_THREADS},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            self._socket = ours
        return self._socket

    def _ask(
        self, channel: socket.socket, request: StartRequest
    ) -> WorkerProcess | _RefusedForThreads:
        with ExitStack() as stack:
            exit_read, exit_write = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, exit_write)
            env_fd = os.memfd_create("llutil-env", os.MFD_CLOEXEC)
            stack.callback(os.close, env_fd)
            with open(env_fd, "wb", closefd=False) as file:
                file.write(json.dumps(dict(request.env)).encode())
            fds = [env_fd, exit_write, request.order_fd, request.outcome_fd]
            streams = {name: getattr(request, name) for name in ("stdin", "stdout", "stderr")}
            given = [fd for fd in streams.values() if fd is not None]
            header = {name: fd is not None for name, fd in streams.items()}
            channel.settimeout(_ANSWER_TIMEOUT)
            try:
                socket.send_fds(channel, [json.dumps(header).encode()], fds + given)
                answer, pidfds, _, _ = socket.recv_fds(channel, 256, 1)
                if not answer:
                    raise EOFError("the fork server closed its socket")
            except BaseException:
                os.close(exit_read)
                raise
        match json.loads(answer):
            case {"pid": int(pid), "start": int(ticks)}:
                return _ServerChild(pid, ticks, pidfds[0], exit_read)
            case other:
                os.close(exit_read)
                return _RefusedForThreads(int(other["threads"]))
