"""What a worker starts with, as it comes over a socket to the process that starts it or becomes it.

A rank server imports it before its first worker starts, so it imports little; see
``rank_server_loop``.
"""

from __future__ import annotations

import json
import os
import signal
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

__all__ = ["WorkerStart", "await_start", "read_body"]

_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
"""Signals by which a process ends that does something wrong."""


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


def read_body(fd: int) -> dict[str, Any]:
    """What the memory file ``fd`` holds: the worker's environment, and its command if it is a
    fresh interpreter.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", closefd=False) as file:
        found: dict[str, Any] = json.load(file)
        return found


def await_start(
    channel_fd: int, not_its: Iterable[int], rehearse: Callable[[], None]
) -> WorkerStart:
    """Wait in a forked process until it is needed as a worker; end it if it never is.

    ``not_its`` are descriptors of its server's. ``rehearse`` is called before it waits.

    Signals that come before are not meant for the worker: a batch system may send any to every
    process of its job. They are forgotten. The agent is told when that is over.
    """
    for fd in not_its:
        os.close(fd)
    channel = socket.socket(fileno=channel_fd)
    before = {
        number: signal.getsignal(number)
        for number in signal.valid_signals() - _FAULTS - {signal.SIGKILL, signal.SIGSTOP}
    }
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, signal.SIG_IGN)
    rehearse()
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, _FAULTS)
    try:
        data, fds, flags, _ = socket.recv_fds(channel, 65536, 8)
    except ConnectionResetError:  # the agent has gone without reading what it was told
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, handler)
    if not data or flags & socket.MSG_CTRUNC:
        os._exit(0)
    channel.send(b"1")
    body_fd, *others = fds
    body = read_body(body_fd)
    channel.close()
    return WorkerStart(body["env"], others, {body_fd}, **json.loads(data))
