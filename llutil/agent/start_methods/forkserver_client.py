"""Warm workers, the agent's side: ``ForkServer`` starts them from a process that has torch imported
already.

It keeps that server, asks it over a socket, and starts another when it died. The server's own side
is ``forkserver``. Where a worker cannot be forked and be what its environment says, it gets an
interpreter of its own instead.
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

from llutil.agent.start_methods.spawn_and_fork import Spawn, Start, WorkerProcess, interpreter
from llutil.agent.worker_side.fork_environment import BLAS_THREADS, too_late
from llutil.errors import InfrastructureError
from llutil.time_budgets import HELPER_ENDED

__all__ = ["ForkServer", "ForkedServerProcess", "ServerProcess"]

_log = logging.getLogger(__name__)

_ANSWER_DEADLINE = (
    120.0  # seconds for the fork server to import torch and answer on a loaded machine
)


class ServerProcess(Protocol):
    """A fork server's process, as its parent sees it; ``subprocess.Popen`` is one."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def kill(self) -> None:
        """SIGKILL, if it has not been reaped."""


class ForkedServerProcess:
    """A fork server that this very process has forked; see ``forkserver.fork_server``."""

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
            except ChildProcessError:  # somebody else's wait took the status
                pid, status = self._pid, signal.SIGKILL
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self) -> None:
        """See ``ServerProcess``."""
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)


def _await_end(server: ServerProcess) -> None:
    """Wait for the end of a server that was killed, and reap it."""
    if server.poll() is not None:
        return  # and its number may be a stranger's by now
    pidfd = os.pidfd_open(server.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(1000 * HELPER_ENDED)
    finally:
        os.close(pidfd)
    if server.poll() is None:
        _log.warning(
            "the fork server, process %d, is there %g s after SIGKILL", server.pid, HELPER_ENDED
        )


class _Served:
    """A worker that is the fork server's child. The server writes its status into a pipe when it
    reaped it.
    """

    def __init__(self, pid: int, exit_fd: int) -> None:
        self.pid = pid
        self.exit_fd = exit_fd
        self._status: int | None = None
        os.set_blocking(exit_fd, False)

    def poll(self) -> int | None:
        """See ``WorkerProcess``."""
        if self._status is None:
            try:
                text = os.read(self.exit_fd, 64)
            except BlockingIOError:
                return None
            # An empty read means that the server itself was killed, and its children with it.
            self._status = int(text) if text else -9
        return self._status

    def close(self) -> None:
        """See ``WorkerProcess``."""
        os.close(self.exit_fd)


@dataclass(frozen=True, slots=True)
class _Threads:
    """The server's answer that it has so many threads, and does not fork."""

    count: int


class ForkServer:
    """Workers forked from a small process that has torch imported already, and is forked from by
    nobody else.

    ``env`` is the server's environment, but for what keeps its libraries from starting threads. The
    server is started at once, so that its imports run while the rendezvous does, and again when it
    died; ``first`` is one that is there already, with our end of its socket.
    """

    def __init__(
        self, env: Mapping[str, str], first: tuple[ServerProcess, socket.socket] | None = None
    ) -> None:
        self._env = dict(env)
        self._server: ServerProcess | None = None
        self._socket: socket.socket | None = None
        self._fresh = Spawn()
        self._told = ""
        if first is not None:
            self._server, self._socket = first
        self._ensure()

    @property
    def pids(self) -> frozenset[int]:
        """The server, which is no worker and carries the job's mark."""
        return frozenset({self._server.pid} if self._server is not None else ())

    def start(self, start: Start) -> WorkerProcess:
        """One more child of the server, which is started again if it died; or a fresh interpreter
        if it must be.

        :raises InfrastructureError: the server cannot be made to answer.
        """
        if names := too_late(self._env, start.env):
            return self._start_afresh(
                start, f"{', '.join(names)} differ from what the fork server was started with"
            )
        for attempt in (1, 2):
            channel = self._ensure()
            try:
                answer = self._ask(channel, start)
            except (OSError, EOFError) as error:
                self.close()
                if attempt == 2:
                    raise InfrastructureError(
                        f"the fork server did not start a worker: {error!r}"
                    ) from error
                continue
            if isinstance(answer, _Threads):
                return self._start_afresh(
                    start, f"the fork server has {answer.count} threads, which a fork would lose"
                )
            return answer
        raise AssertionError("unreachable")

    def _start_afresh(self, start: Start, why: str) -> WorkerProcess:
        if why != self._told:  # the same goes for each rank and restart
            _log.warning("workers get interpreters of their own, which start slower: %s", why)
            self._told = why
        return self._fresh.start(start)

    def close(self) -> None:
        """End the server, and with it every worker that it forked."""
        if self._socket is not None:
            self._socket.close()  # the server ends when its socket does
            self._socket = None
        if self._server is not None:
            self._server.kill()
            _await_end(self._server)
            self._server = None

    def _ensure(self) -> socket.socket:
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
                    interpreter(call),
                    stdin=subprocess.DEVNULL,
                    env={**self._env, **BLAS_THREADS},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            self._socket = ours
        return self._socket

    def _ask(self, channel: socket.socket, start: Start) -> WorkerProcess | _Threads:
        with ExitStack() as stack:
            exit_read, exit_write = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, exit_write)
            env_fd = os.memfd_create("llutil-env", os.MFD_CLOEXEC)
            stack.callback(os.close, env_fd)
            with open(env_fd, "wb", closefd=False) as file:
                file.write(json.dumps(dict(start.env)).encode())
            fds = [env_fd, exit_write, start.order_fd, start.outcome_fd]
            given = [fd for fd in (start.stdout, start.stderr) if fd is not None]
            header = {"stdout": start.stdout is not None, "stderr": start.stderr is not None}
            channel.settimeout(_ANSWER_DEADLINE)
            try:
                socket.send_fds(channel, [json.dumps(header).encode()], fds + given)
                answer = channel.recv(64)
                if not answer:
                    raise EOFError("it ended")
            except BaseException:
                os.close(exit_read)
                raise
        match json.loads(answer):
            case {"pid": int(pid)}:
                return _Served(pid, exit_read)
            case other:
                os.close(exit_read)
                return _Threads(int(other["threads"]))
