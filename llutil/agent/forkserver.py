"""The process that warm workers are forked from: torch is imported here once, and no thread ever starts.

It serves one agent over one socket. A request brings descriptors (the worker's environment, where to write
its exit status, its order, its outcome pipe, its streams); the answer is the worker's pid. When the socket
closes, or the agent dies, the server ends and its workers with it. It never touches CUDA: a CUDA context
does not survive a fork. It runs no code of the user's before it has forked.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket

from llutil.agent import bootstrap
from llutil.agent.order import read_order
from llutil.agent.processes import die_with_parent
from llutil.agent.starting import place_streams

__all__ = ["main"]


def main(channel_fd: int, parent: int) -> None:
    """Serve until the socket ``channel_fd`` closes; ``parent`` is the agent's pid."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent decides what a Ctrl-C means
    _import_ahead()
    channel = socket.socket(fileno=channel_fd)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wake-up pipe is written
    exits: dict[int, int] = {}
    own = {channel_fd, wake_read, wake_write}
    while True:
        ready, _, _ = select.select([channel_fd, wake_read], [], [])
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(exits)
        if channel_fd in ready and not _serve(channel, exits, own):
            os._exit(0)


def _import_ahead() -> None:
    """Import what every worker needs. A missing torch is the worker's failure to report, not the server's."""
    with contextlib.suppress(ImportError):
        import torch
        import torch.distributed  # noqa: F401 - imported for the workers
    import cloudpickle  # noqa: F401 - as above

    import llutil.shipping  # noqa: F401 - as above


def _reap(exits: dict[int, int]) -> None:
    while exits:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        fd = exits.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # the agent stopped caring
            os.write(fd, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(fd)


def _serve(channel: socket.socket, exits: dict[int, int], own: set[int]) -> bool:
    data, fds, _, _ = socket.recv_fds(channel, 65536, 6)
    if not data:
        return False
    header = json.loads(data)
    env_fd, exit_fd, order_fd, outcome_fd, *streams = fds
    stdout = streams.pop(0) if header["stdout"] else None
    stderr = streams.pop(0) if header["stderr"] else None
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            die_with_parent(server)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            place_streams(stdout, stderr)
            os.lseek(env_fd, 0, os.SEEK_SET)
            with os.fdopen(env_fd, "rb") as file:
                env = json.load(file)
            for fd in (own | set(exits.values()) | {exit_fd, stdout, stderr}) - {None}:
                assert fd is not None
                os.close(fd)
            os.environ.clear()
            os.environ.update(env)
            order = read_order(order_fd)
            os.close(order_fd)
            bootstrap.run_forked(order, outcome_fd, None)
        finally:
            os._exit(70)
    exits[pid] = exit_fd
    for fd in fds:
        if fd != exit_fd:
            os.close(fd)
    channel.send(str(pid).encode())
    return True
