"""The fork server: a process that imports torch once, starts no thread, and forks workers.

It serves one agent over one socket. A request brings descriptors (the worker's environment, where
to write its exit status, its order, its outcome pipe, its streams); the answer is the worker's pid.
When the socket closes, or the agent dies, the server ends and its workers with it. It never touches
CUDA: a CUDA context does not survive a fork. It runs no user code before it has forked. It does not
fork while it has a second thread: a lock that the other thread holds, malloc's for example, would
stay locked in the child for ever.

There are two ways to run it. ``main`` runs it in a fresh interpreter. ``fork_server`` forks it from
a process that has called ``import_ahead`` itself and has no second thread yet; then one import
serves both.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
import types
from typing import NoReturn

from llutil.agent.start_methods.blas_threads import BlasPools, thread_count
from llutil.agent.start_methods.forkserver_client import ForkedServerProcess
from llutil.agent.start_methods.spawn_and_fork import (
    exit_status_of,
    fork_without_gc,
    replace_standard_streams,
)
from llutil.agent.worker_side import worker_main
from llutil.agent.worker_side.work_order import read_order
from llutil.entrypoint import Command
from llutil.system.gc_pause import gc_paused
from llutil.system.process_inheritance import die_with_parent
from llutil.system.process_table import stat_of

__all__ = ["fork_server", "import_ahead", "main"]


def main(channel_fd: int, parent: int) -> None:
    """Serve until the socket ``channel_fd`` closes; ``parent`` is the agent's pid."""
    _set_up_process(parent)
    import_ahead()
    _serve(channel_fd)


def import_ahead() -> None:
    """Import what every worker needs. If torch is missing or broken, the worker reports that, not
    the server.
    """
    with gc_paused(freeze=True):
        # Under ``-W error`` an import may raise a warning, too.
        with contextlib.suppress(ImportError, OSError, Warning):
            import torch
            import torch.distributed  # noqa: F401 - imported for the workers
        import cloudpickle  # noqa: F401 - as above

        import llutil.serialization.functions  # noqa: F401 - as above


def fork_server() -> tuple[ForkedServerProcess, socket.socket] | None:
    """A server forked from this process, and our end of its socket; None if this process has a
    second thread.

    Of this process's descriptors the server keeps only the standard streams. It keeps no signal
    handler.
    """
    parent = os.getpid()
    # A signal handler that runs between the count of threads and the fork might start one.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        if thread_count() > 1:
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = fork_without_gc()
            if pid == 0:
                _run_forked_server(theirs.fileno(), parent)
        return ForkedServerProcess(pid), ours
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_forked_server(channel_fd: int, parent: int) -> NoReturn:
    try:
        os.setsid()
        _set_up_process(parent)
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        for fd in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, channel_fd}:  # noqa: PTH208 - numbers
            with contextlib.suppress(OSError):  # listdir's own descriptor is closed already
                os.close(fd)
        # As in ``python -c``. Else multiprocessing in a worker would import the agent's
        # ``__main__`` as the user's program.
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.argv[:] = ["-c"]
        _serve(channel_fd)
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        os._exit(70)


def _set_up_process(parent: int) -> None:
    die_with_parent(parent)
    # The agent handles a stop. If the server ended by the signal, its workers would get no grace
    # period. A batch system may send any signal to every process of its job.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    # With an inherited ignored SIGCHLD the kernel would keep no exit status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _serve(channel_fd: int) -> NoReturn:
    pools = BlasPools()
    # Garbage collection in a worker would write to objects that all workers share, and so copy
    # their memory.
    gc.freeze()
    channel = socket.socket(fileno=channel_fd)
    poll = select.poll()
    poll.register(channel_fd, select.POLLIN)
    children = _Children(poll)
    while True:
        for fd, _ in poll.poll():
            if fd != channel_fd:
                children.on_ready(fd)
            elif not _answer(channel, children, pools):
                os._exit(0)


class _Children:
    """The workers that were forked and are not reaped yet.

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
                os.write(status_fd, str(exit_status_of(pid)).encode())
            self._ended[status_fd] = pid
            self._poll.register(status_fd, 0)  # no events: poll still reports a closed reader
        else:
            os.waitpid(self._ended.pop(fd), 0)
        os.close(fd)

    def fds(self) -> set[int]:
        """Descriptors that another worker must not keep."""
        return {*self._running, *(fd for _, fd in self._running.values()), *self._ended}


def _answer(channel: socket.socket, children: _Children, pools: BlasPools) -> bool:
    """Handle one request; False if the socket is closed and there will be no more."""
    data, fds, _, _ = socket.recv_fds(channel, 65536, 7)
    if not data:
        return False
    threads = thread_count()
    if threads > 1:
        for fd in fds:
            os.close(fd)
        channel.send(json.dumps({"threads": threads}).encode())
        return True
    _, exit_fd, *_ = fds
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _run_worker(server, json.loads(data), fds, children.fds() | {channel.fileno()}, pools)
        except BaseException:  # noqa: BLE001 - the edge of the process
            traceback.print_exc()
        finally:
            os._exit(70)
    pidfd = children.add(pid, exit_fd)
    stat = stat_of(pid)
    assert stat is not None, "it has not been reaped"
    for fd in fds:
        if fd != exit_fd:
            os.close(fd)
    answer = json.dumps({"pid": pid, "start": stat.start}).encode()
    socket.send_fds(channel, [answer], [pidfd])
    return True


def _run_worker(
    server: int, header: dict[str, bool], fds: list[int], server_fds: set[int], pools: BlasPools
) -> NoReturn:
    """Become a worker. ``server_fds`` are descriptors of the server that a worker must not keep."""
    env_fd, _, order_fd, outcome_fd, *streams = fds
    stdin, stdout, stderr = (
        streams.pop(0) if header[name] else None for name in ("stdin", "stdout", "stderr")
    )
    os.setsid()
    die_with_parent(server)
    replace_standard_streams(stdin, stdout, stderr)
    os.lseek(env_fd, 0, os.SEEK_SET)
    with os.fdopen(env_fd, "rb") as file:
        env = json.load(file)
    for fd in server_fds | set(fds[1:]) - {order_fd, outcome_fd}:
        os.close(fd)
    os.environ.clear()
    os.environ.update(env)
    order = read_order(order_fd)
    if not isinstance(order.entrypoint, Command):
        pools.set_threads(env)
    worker_main.run_forked(order, order_fd, outcome_fd, None)
