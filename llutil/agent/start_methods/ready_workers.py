"""Workers that a rank server has forked before they are needed: the agent's side of them.

To fork a process that has torch takes longer than all else that a worker's start needs. So the
agent asks for forks ahead, while nobody waits. Such a process has run no code of the user's. It
waits on a socket of its own for what a worker starts with, and says when it has that: from then on
no signal to it is lost. It is spared when the rest of a round is killed. It ends when its socket
closes, and is killed with its server. A fork that is missing is no error: whoever needs a worker
asks the server for one, as if there were none ahead.

This module may import the standard library and ``llutil.system.send_signal``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from llutil.system.send_signal import send_signal_by_pidfd

__all__ = ["READY_HEADER", "ReadyWorker", "ReadyWorkers"]

READY_HEADER = b'{"ready": true}'
"""The request for a fork that waits."""

# Seconds to wait for forks that were asked for, before a round's processes are killed.
_ANSWER_TIME = 0.2


class ReadyWorker:
    """One such process, or the request for it: ``pid`` is 0 until it is there.

    ``exit_fd`` is where its exit status comes.
    """

    def __init__(self, channel: socket.socket, exit_fd: int) -> None:
        self.channel = channel
        self.exit_fd = exit_fd
        self.pid = self.start = 0
        self.pidfd = -1

    def take_answer(self) -> None:
        """Take the server's answer, which has come.

        :raises OSError: there is no such process, or no descriptor is free for it.
        :raises EOFError: the server has refused.
        """
        answer, pidfds, _, _ = socket.recv_fds(self.channel, 4096, 1)
        if not answer or not pidfds:
            raise EOFError("the server forked none ahead")
        found = json.loads(answer)
        self.pid, self.start, self.pidfd = found["pid"], found["start"], pidfds[0]

    def hand_over(
        self, header: bytes, fds: Sequence[int], await_answer: Callable[[socket.socket], None]
    ) -> None:
        """Give it what its worker starts with, and wait until it has that.

        :raises OSError: it is gone.
        :raises EOFError: it has just ended.
        """
        socket.send_fds(self.channel, [header], fds)
        await_answer(self.channel)
        if not self.channel.recv(1):
            raise EOFError("a fork ahead has ended")

    def give_up(self) -> None:
        """End it, and close its descriptors."""
        if self.pid:
            send_signal_by_pidfd(self.pidfd, signal.SIGKILL)
            os.close(self.pidfd)
        self.channel.close()
        os.close(self.exit_fd)


class ReadyWorkers:
    """Those of one rank server, the oldest first."""

    def __init__(self) -> None:
        self._all: deque[ReadyWorker] = deque()

    def ask(self, server: socket.socket, count: int) -> None:
        """Ask ``server`` for as many as are missing to ``count``. Waits for nothing; what cannot be
        had now is left out.
        """
        with suppress(OSError):
            while len(self._all) < count:
                self._ask_one(server)

    def _ask_one(self, server: socket.socket) -> None:
        exit_read, exit_write = os.pipe2(os.O_CLOEXEC)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                with theirs:
                    fds = [theirs.fileno(), exit_write]
                    socket.send_fds(server, [READY_HEADER], fds, socket.MSG_DONTWAIT)
            except BaseException:
                ours.close()
                raise
        except BaseException:
            os.close(exit_read)
            raise
        finally:
            os.close(exit_write)
        self._all.append(ReadyWorker(ours, exit_read))

    def processes(self) -> dict[int, int]:
        """The number of each and its start, in ticks. Waits a moment for those that were asked
        for.
        """
        deadline = time.monotonic() + _ANSWER_TIME
        for ready in tuple(self._all):
            if ready.pid:
                continue
            poll = select.poll()
            poll.register(ready.channel, select.POLLIN)
            if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
                break  # they are answered in order
            try:
                ready.take_answer()
            except (OSError, EOFError):
                self._all.remove(ready)
                ready.give_up()
        return {ready.pid: ready.start for ready in self._all if ready.pid}

    def take(self) -> ReadyWorker | None:
        """The next one, which may not have been forked yet; None if there is none."""
        return self._all.popleft() if self._all else None

    def close(self) -> None:
        """End all."""
        while self._all:
            self._all.popleft().give_up()
