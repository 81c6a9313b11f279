"""The agent's side of a rank server: ``RankServer`` has the process that workers are started from.

It keeps that process, sends it requests over a socket, and starts another when it has died.
``rank_server_loop`` runs in that process. So the workers are its children and not the agent's: it
is a process of ours, which may adopt the orphans below it. An agent is often a user's program.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from llutil.agent.start_methods.ready_workers import ReadyWorkers
from llutil.agent.start_methods.server_process import ServerProcess, await_end
from llutil.agent.start_methods.starter import (
    RankServerLostError,
    StartRequest,
    WorkerProcess,
)
from llutil.errors import InfrastructureError
from llutil.system.process_table import stat_of
from llutil.system.send_signal import Sent, send_signal_by_pidfd
from llutil.time_budgets import HELPER_ENDED

__all__ = ["ForkRefused", "RankServer"]

_log = logging.getLogger(__name__)

# Seconds for a rank server to import torch and answer, on a loaded host.
_ANSWER_TIMEOUT = 120.0
# Seconds for a rank server to end by itself, which it does once nothing is left below it.
_END_TIMEOUT = 1.0
# Seconds between two calls of a request's ``check``.
_CHECK_PERIOD = 0.1
# Seconds for its answer after a stop was asked for.
_STOP_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class ForkRefused:
    """The server's answer that it has ``threads`` threads, and so does not fork."""

    threads: int


class RankServer:
    """A process that workers are started from.

    ``start_process`` starts one, and gives it with our end of its socket. ``first`` is one that
    runs already. It is started at once, and again when it has died.
    """

    def __init__(
        self,
        start_process: Callable[[], tuple[ServerProcess, socket.socket]],
        first: tuple[ServerProcess, socket.socket] | None = None,
    ) -> None:
        self._start_process = start_process
        self._process: ServerProcess | None = None
        self._socket: socket.socket | None = None
        self._start_ticks = 0
        self._answered = False
        self._workers: set[_ServerChild] = set()
        self._ready = ReadyWorkers()
        self._ensure(first)

    @property
    def processes(self) -> dict[int, int]:
        """See ``Starter``; nothing while there is no such process."""
        if self._process is None or self._process.poll() is not None:
            return {}
        return {self._process.pid: self._start_ticks}

    @property
    def ready(self) -> dict[int, int]:
        """See ``Starter``."""
        return self._ready.processes()

    def prepare(self, count: int) -> None:
        """See ``Starter``; nothing while there is no such process."""
        if self._socket is not None and self.processes:
            self._ready.ask(self._socket, count)

    def start(
        self, request: StartRequest, interpreter: Sequence[str] = ()
    ) -> WorkerProcess | ForkRefused:
        """One more worker: a fork of the server or, with ``interpreter``, that command, a fresh
        interpreter which imports ``worker_main``'s main.

        :raises RankServerLostError: the server died, and workers of it.
        :raises InfrastructureError: the server does not answer, or cannot start a process.
        :raises OSError: this process has no more descriptors.
        """
        for attempt in (1, 2):
            channel = self._ensure()
            with ExitStack() as sent, ExitStack() as kept:
                header, fds = _message(request, interpreter, sent)
                if not interpreter and (worker := self._start_ready(header, fds, request.check)):
                    return worker
                exit_read, exit_write = os.pipe2(os.O_CLOEXEC)
                kept.callback(os.close, exit_read)
                sent.callback(os.close, exit_write)
                fds.insert(1, exit_write)
                try:
                    answer, pidfds = self._ask(channel, header, fds, request.check)
                except (OSError, EOFError) as error:
                    # Workers die with their server, so only one without any is replaced.
                    had_workers = bool(self._workers)
                    self.close()
                    if had_workers or attempt == 2:
                        kind = RankServerLostError if had_workers else InfrastructureError
                        raise kind(
                            f"the process that starts workers did not start one: {error!r}"
                        ) from error
                    continue
                match json.loads(answer):
                    case {"pid": int(pid), "start": int(ticks)}:
                        if not pidfds:  # the kernel found no room for it
                            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                        kept.pop_all()
                        return _ServerChild(pid, ticks, pidfds[0], exit_read, self._workers)
                    case {"error": str(why)}:
                        raise InfrastructureError(f"a worker could not be started: {why}")
                    case other:
                        return ForkRefused(int(other["threads"]))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the server, and with it every worker that it started."""
        self._workers = set()
        self._ready.close()
        if self._socket is not None:
            self._socket.close()  # the server ends when its socket does
            self._socket = None
        if self._process is None:
            return
        # One that has never answered may still be importing: it has started nothing.
        if not self._answered or not await_end(self._process, _END_TIMEOUT):
            self._process.kill()
            if not await_end(self._process, HELPER_ENDED - _END_TIMEOUT):
                text = "the process that starts workers, %d, still exists %g s after SIGKILL"
                _log.warning(text, self._process.pid, HELPER_ENDED - _END_TIMEOUT)
        self._process = None

    def _ensure(self, first: tuple[ServerProcess, socket.socket] | None = None) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._socket is None:
            self._process, self._socket = first or self._start_process()
            self._answered = False
            stat = stat_of(self._process.pid)
            self._start_ticks = 0 if stat is None else stat.start
        return self._socket

    def _ask(
        self,
        channel: socket.socket,
        header: bytes,
        fds: Sequence[int],
        check: Callable[[], None],
    ) -> tuple[bytes, list[int]]:
        channel.settimeout(_ANSWER_TIMEOUT)
        socket.send_fds(channel, [header], fds)
        self._await_answer(channel, check)
        answer, pidfds, _, _ = socket.recv_fds(channel, 4096, 1)
        if not answer:
            raise EOFError("it closed its socket")
        self._answered = True
        return answer, pidfds

    def _start_ready(
        self, header: bytes, fds: Sequence[int], check: Callable[[], None]
    ) -> WorkerProcess | None:
        """A worker that was forked ahead; None if there is none."""
        while ready := self._ready.take():
            try:
                if not ready.pid:
                    self._await_answer(ready.channel, check)
                    ready.take_answer()
                ready.hand_over(header, fds, lambda channel: self._await_answer(channel, check))
            except BaseException as error:
                ready.give_up()
                if not isinstance(error, OSError | EOFError):
                    raise
                if isinstance(error, TimeoutError):
                    self._ready.close()  # another would not answer either
                continue
            ready.channel.close()
            return _ServerChild(ready.pid, ready.start, ready.pidfd, ready.exit_fd, self._workers)
        return None

    def _await_answer(self, channel: socket.socket, check: Callable[[], None]) -> None:
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        stopped_at = float("inf")
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        while not poll.poll(1000 * _CHECK_PERIOD):
            try:
                check()
            except BaseException:
                stopped_at = min(stopped_at, time.monotonic())
                is_over = time.monotonic() - stopped_at >= _STOP_PATIENCE
                # Workers that run already have a grace period, if the server only answers late. It
                # may also be this process that stood still, and has not seen the answer yet.
                if is_over and not poll.poll(0):
                    self.close()  # it may answer yet, and start a worker that nobody waits for
                    raise
            if time.monotonic() >= deadline and not poll.poll(0):
                raise TimeoutError(f"it did not answer within {_ANSWER_TIMEOUT:g} s")


def _message(
    request: StartRequest, interpreter: Sequence[str], sent: ExitStack
) -> tuple[bytes, list[int]]:
    """The message to a process that is to start the worker, or to become it: its text and its
    descriptors. ``sent`` closes what only that process needs once the message is sent.
    """
    body_fd = os.memfd_create("llutil-start", os.MFD_CLOEXEC)
    sent.callback(os.close, body_fd)
    body = {"env": dict(request.env), "interpreter": list(interpreter)}
    with open(body_fd, "wb", closefd=False) as file:
        file.write(json.dumps(body).encode())
    cwd_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sent.callback(os.close, cwd_fd)
    fds = [body_fd, cwd_fd, request.order_fd, request.outcome_fd]
    names = ("stdin", "stdout", "stderr", "shared_fd")
    further = {name: getattr(request, name) for name in names}
    given = [fd for fd in further.values() if fd is not None]
    header = {name: fd is not None for name, fd in further.items()}
    return json.dumps(header).encode(), fds + given


class _ServerChild:
    """A worker that is a child of the rank server. The server writes the worker's exit status into
    a pipe. ``siblings`` are the server's workers that are not closed yet.
    """

    def __init__(
        self, pid: int, start: int, pidfd: int, exit_fd: int, siblings: set[_ServerChild]
    ) -> None:
        self.pid = pid
        self.start = start
        self.exit_fd = exit_fd
        self._pidfd = pidfd
        self._siblings = siblings
        self._status: int | None = None
        os.set_blocking(exit_fd, False)
        siblings.add(self)

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
        self._siblings.discard(self)
        os.close(self.exit_fd)
        os.close(self._pidfd)
