"""What runs in a rank server: the process that the ranks of a node are children of.

It serves one agent over one socket. A request brings descriptors (the worker's environment, where
to write its exit status, its order, its outcome pipe, its streams); the answer is the worker's pid,
its start, and a descriptor of it. A worker is a fresh interpreter or, where the caller of ``serve``
has something to fork for, a fork of this process. Such a fork may be asked for ahead: then it waits
on a socket of its own for what it starts with, see ``ready_workers``.

The process adopts the orphans of its workers: what they leave in sessions and environments of their
own stays below it, and is found there. It ends when its agent closes the socket or is killed, and
before that it kills all that is below it. It has one thread.

``main`` serves fresh interpreters alone. Under ``spawn`` each launch waits for it, so this module
imports little: of the standard library nothing like ``dataclasses`` or ``typing``, and of ours only
``rank_server_children``, ``worker_start``, ``llutil.system`` and ``llutil.time_budgets``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback

from llutil.agent.start_methods.rank_server_children import Children
from llutil.agent.start_methods.worker_start import WorkerStart, await_start, read_body
from llutil.system.gc_pause import fork_without_gc
from llutil.system.kill_all import kill_all
from llutil.system.process_inheritance import adopt_orphans, die_with_parent
from llutil.system.process_table import stat_of
from llutil.time_budgets import KILLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = ["main", "serve", "set_up_process"]

# Seconds between two looks at what gives no notice: an adopted process that has ended.
_REAP_PERIOD = 10.0
_NO_ROOM = "the process that starts workers may have no more open files (ulimit -n)"


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
    rehearse: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Answer requests until the agent needs no more or is gone.

    ``become_worker`` is called in a fork of this process; without it there are no forks.
    ``may_fork`` gives the answer to a request for a fork if there should be none. ``rehearse`` is
    called in a fork that was asked for ahead, before it waits.
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
    children = Children(poll)
    own_fds = {channel_fd, agent_fd}

    def fork_ahead(fds: list[int]) -> None:
        _fork_ahead(fds, own_fds, children, become_worker, may_fork, rehearse)

    while True:
        for fd, _ in poll.poll(1000 * _REAP_PERIOD):
            if fd == agent_fd:
                _end()
            elif fd != channel_fd:
                children.on_ready(fd)
            elif not _answer(channel, own_fds, children, become_worker, may_fork, fork_ahead):
                _end()
        children.tell_statuses()
        with contextlib.suppress(OSError):  # no descriptor is free to look with
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


def _answer(
    channel: socket.socket,
    own_fds: set[int],
    children: Children,
    become_worker: Callable[[WorkerStart], NoReturn] | None,
    may_fork: Callable[[], dict[str, Any] | None],
    fork_ahead: Callable[[list[int]], None] = lambda _: None,
) -> bool:
    """Handle one request; False if the socket is closed and there will be no more."""
    try:
        data, fds, flags, _ = socket.recv_fds(channel, 65536, 9)
    except ConnectionResetError:  # the agent died before it read an answer
        return False
    if not data:
        return False
    header = json.loads(data)
    if "ready" in header:
        fork_ahead(fds)
        return True
    answer: dict[str, Any] | None = None
    pidfds: list[int] = []
    pid = exit_fd = -1
    try:
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, _NO_ROOM)
        body_fd, exit_fd, *others = fds
        body = read_body(body_fd)
        not_its = {*own_fds, *children.fds(), body_fd, exit_fd}
        start = WorkerStart(body["env"], others, not_its, **header)
        if body["interpreter"]:
            pid = _start_interpreter(body["interpreter"], start)
        else:
            answer = may_fork()
            pid = -1 if answer else _fork(become_worker, lambda: start)
    except (OSError, ValueError) as error:  # a ValueError: no process can have such an environment
        answer = {"error": str(error)}
    for fd in fds:  # now: this process may have no more descriptors, and needs two of them
        if answer is not None or fd != exit_fd:
            os.close(fd)
    if answer is None:
        pidfds = [children.add(pid, exit_fd)]
        answer = _named(pid)
    with contextlib.suppress(ConnectionError):  # the agent died since: the next read tells
        socket.send_fds(channel, [json.dumps(answer).encode()], pidfds)
    return True


def _named(pid: int) -> dict[str, Any]:
    """The child ``pid``, as the agent is told of it."""
    stat = stat_of(pid)
    assert stat is not None, "it has not been reaped"
    return {"pid": pid, "start": stat.start}


def _fork_ahead(
    fds: list[int],
    own_fds: set[int],
    children: Children,
    become_worker: Callable[[WorkerStart], NoReturn] | None,
    may_fork: Callable[[], dict[str, Any] | None],
    rehearse: Callable[[], None],
) -> None:
    """Fork a process that waits until it is needed as a worker, and tell the agent over that
    process's socket. If there can be none, the socket is closed: the agent does without.
    """
    room: list[int] = []
    pid = -1
    try:
        ahead_fd, exit_fd = fds  # a ValueError: they did not both come
        room += [os.dup(exit_fd)]
        room += [os.dup(exit_fd)]  # two descriptors are needed after the fork
        if may_fork() is None:
            not_its = {*own_fds, *children.fds(), *room, exit_fd}
            pid = _fork(become_worker, lambda: await_start(ahead_fd, not_its, rehearse))
    except (OSError, ValueError):
        pass
    for fd in room:
        os.close(fd)
    if pid > 0:
        pidfd = children.add(pid, fds.pop())
        with socket.socket(fileno=fds.pop()) as ahead, contextlib.suppress(OSError):
            socket.send_fds(ahead, [json.dumps(_named(pid)).encode()], [pidfd])
    for fd in fds:
        os.close(fd)


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
    # ``Children`` waits for the process. Without this, Popen's finalizer would wait for it too.
    popen.returncode = 0
    return popen.pid


def _fork(
    become_worker: Callable[[WorkerStart], NoReturn] | None, await_it: Callable[[], WorkerStart]
) -> int:
    """Fork a worker, which starts with what ``await_it`` returns there."""
    assert become_worker is not None
    server = os.getpid()
    pid = fork_without_gc()
    if pid == 0:
        try:
            os.setsid()
            die_with_parent(server)
            become_worker(await_it())
        except BaseException:  # noqa: BLE001 - the edge of the process
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(70)
    return pid
