"""What runs in a rank server: the process that the ranks of a node are children of.

It serves one agent over one socket. A request brings descriptors (the worker's environment, where
to write its exit status, its order, its outcome pipe, its streams); the answer is the worker's pid,
its start, and a descriptor of it. A worker is a fresh interpreter or, where the caller of ``serve``
has something to fork for, a fork of this process.

The process adopts the orphans of its workers: what they leave in sessions and environments of their
own stays below it, and is found there. It ends when its agent closes the socket or is killed, and
before that it kills all that is below it. It has one thread.

``main`` serves fresh interpreters alone. Under ``spawn`` each launch waits for it, so this module
imports little: of the standard library nothing like ``dataclasses`` or ``typing``, and of ours only
``llutil.system`` and ``llutil.time_budgets``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback

from llutil.system.gc_pause import fork_without_gc
from llutil.system.kill_all import kill_all
from llutil.system.process_inheritance import adopt_orphans, die_with_parent
from llutil.system.process_table import children_of_this_process, stat_of
from llutil.time_budgets import KILLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

__all__ = ["WorkerStart", "main", "serve", "set_up_process"]

# Seconds between two looks whether an adopted process has ended and is to be reaped.
_REAP_PERIOD = 10.0


class WorkerStart:
    """What one worker starts with. The descriptors are this process's numbers.

    ``server_fds`` are those that are not for the worker.
    """

    __slots__ = (
        "cwd_fd",
        "env",
        "order_fd",
        "outcome_fd",
        "server_fds",
        "shared_fd",
        "stderr",
        "stdin",
        "stdout",
    )

    def __init__(
        self,
        env: dict[str, str],
        fds: Sequence[int],
        server_fds: set[int],
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        shared_fd: bool,
    ) -> None:
        self.env = env
        self.cwd_fd, self.order_fd, self.outcome_fd, *further = fds
        self.stdin = further.pop(0) if stdin else None
        self.stdout = further.pop(0) if stdout else None
        self.stderr = further.pop(0) if stderr else None
        self.shared_fd = further.pop(0) if shared_fd else None
        self.server_fds = {*server_fds, *fds} - {self.order_fd, self.outcome_fd, self.shared_fd}


def main(channel_fd: int, agent: int) -> None:
    """Serve fresh interpreters over the socket ``channel_fd`` to the process ``agent``."""
    set_up_process()
    serve(channel_fd, agent)


def set_up_process() -> None:
    """Hear no stop, and learn of every child's end."""
    # The agent handles a stop. If this process ended by the signal, its workers would get no grace
    # period. A batch system may send any signal to every process of its job.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    # With an inherited ignored SIGCHLD the kernel would keep no exit status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def serve(
    channel_fd: int,
    agent: int,
    become_worker: Callable[[WorkerStart], NoReturn] | None = None,
    may_fork: Callable[[], dict[str, Any] | None] = lambda: None,
) -> NoReturn:
    """Answer requests until the agent needs no more or is gone.

    ``become_worker`` is called in a fork of this process; without it there are no forks.
    ``may_fork`` gives the answer to a request for a fork if there should be none.
    """
    adopt_orphans()
    channel = socket.socket(fileno=channel_fd)
    poll = select.poll()
    poll.register(channel_fd, select.POLLIN)
    try:
        agent_fd = os.pidfd_open(agent)
    except OSError:
        _end()
    # The socket may be held open by a fork of the agent, so its end alone does not tell.
    poll.register(agent_fd, select.POLLIN)
    if os.getppid() != agent:
        _end()
    children = _Children(poll)
    while True:
        for fd, _ in poll.poll(1000 * _REAP_PERIOD):
            if fd == agent_fd:
                _end()
            elif fd != channel_fd:
                children.on_ready(fd)
            elif not _answer(channel, {channel_fd, agent_fd}, children, become_worker, may_fork):
                _end()
        children.reap_adopted()


def _end() -> NoReturn:
    """Leave nothing below this process, and end it."""
    with contextlib.suppress(ChildProcessError):  # there are none
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        own = stat_of(os.getpid())
        assert own is not None
        left = kill_all({own.pid: own.start}, "", time.monotonic() + KILLED)
        if left:
            with contextlib.suppress(OSError):
                os.write(2, f"llutil: not all processes of a job have ended: {left}\n".encode())
    os._exit(0)


class _Children:
    """The workers that were started and are not reaped yet.

    The exit status of a worker goes into a pipe to the agent. The worker is reaped when the agent
    has closed its end of that pipe. Until then the worker's number, which is also its session's,
    must not be given to another process.
    """

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._running: dict[int, tuple[int, int]] = {}
        """Pid and status pipe, by pidfd."""
        self._ended: dict[int, int] = {}
        """Pid, by status pipe."""

    def add(self, pid: int, status_fd: int) -> int:
        """Write the exit status of ``pid`` to ``status_fd`` when it ends; a descriptor of it."""
        pidfd = os.pidfd_open(pid)
        self._running[pidfd] = pid, status_fd
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def on_ready(self, fd: int) -> None:
        """One of the registered descriptors is ready."""
        self._poll.unregister(fd)
        if fd in self._running:
            pid, status_fd = self._running.pop(fd)
            with contextlib.suppress(BrokenPipeError):  # the agent has closed its end
                os.write(status_fd, str(_exit_status_of(pid)).encode())
            self._ended[status_fd] = pid
            self._poll.register(status_fd, 0)  # no events: poll still reports a closed reader
        else:
            os.waitpid(self._ended.pop(fd), 0)
        os.close(fd)

    def reap_adopted(self) -> None:
        """Reap what was adopted and has ended: nobody else can."""
        workers = {*(pid for pid, _ in self._running.values()), *self._ended.values()}
        for pid in children_of_this_process():
            if pid not in workers:
                os.waitpid(pid, os.WNOHANG)

    def fds(self) -> set[int]:
        """Descriptors that another worker must not keep."""
        return {*self._running, *(fd for _, fd in self._running.values()), *self._ended}


def _answer(
    channel: socket.socket,
    own_fds: set[int],
    children: _Children,
    become_worker: Callable[[WorkerStart], NoReturn] | None,
    may_fork: Callable[[], dict[str, Any] | None],
) -> bool:
    """Handle one request; False if the socket is closed and there will be no more."""
    data, fds, _, _ = socket.recv_fds(channel, 65536, 9)
    if not data:
        return False
    body_fd, exit_fd, *others = fds
    body = _read_json(body_fd)
    start = WorkerStart(
        body["env"], others, {*own_fds, *children.fds(), body_fd, exit_fd}, **json.loads(data)
    )
    answer: dict[str, Any] | None = None
    pidfds: list[int] = []
    try:
        if body["interpreter"]:
            pid = _start_interpreter(body["interpreter"], start)
        else:
            answer = may_fork()
            pid = 0 if answer else _fork(become_worker, start)
    except OSError as error:
        answer = {"error": str(error)}
    if answer is None:
        pidfds = [children.add(pid, exit_fd)]
        fds.remove(exit_fd)
        stat = stat_of(pid)
        assert stat is not None, "it has not been reaped"
        answer = {"pid": pid, "start": stat.start}
    for fd in fds:
        os.close(fd)
    socket.send_fds(channel, [json.dumps(answer).encode()], pidfds)
    return True


def _read_json(fd: int) -> dict[str, Any]:
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", closefd=False) as file:
        found: dict[str, Any] = json.load(file)
        return found


def _start_interpreter(command: list[str], start: WorkerStart) -> int:
    """Run ``command`` of a fresh interpreter, which imports ``worker_main``, and call its main."""
    call = f"; main({start.order_fd}, {start.outcome_fd}, {os.getpid()}, {start.shared_fd})"
    fds = [start.order_fd, start.outcome_fd]
    fds += [] if start.shared_fd is None else [start.shared_fd]
    os.fchdir(start.cwd_fd)
    popen = subprocess.Popen(
        [*command[:-1], command[-1] + call],
        stdin=subprocess.DEVNULL if start.stdin is None else start.stdin,
        stdout=start.stdout,
        stderr=start.stderr,
        env=start.env,
        pass_fds=fds,
        start_new_session=True,
    )
    # ``_Children`` waits for the process. Without this, Popen's finalizer would wait for it too.
    popen.returncode = 0
    return popen.pid


def _fork(become_worker: Callable[[WorkerStart], NoReturn] | None, start: WorkerStart) -> int:
    assert become_worker is not None
    server = os.getpid()
    pid = fork_without_gc()
    if pid == 0:
        try:
            os.setsid()
            die_with_parent(server)
            become_worker(start)
        except BaseException:  # noqa: BLE001 - the edge of the process
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(70)
    return pid


def _exit_status_of(pid: int) -> int | None:
    """The exit status of the child ``pid``, which stays unreaped; None while it runs."""
    try:
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # Another wait in this process took the status. Only the child's end is known.
        return 1
    if end is None:
        return None
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
