"""The process that forks agents: waits for orders, forks, tells how each agent ended, and ends.

It has one thread and waits on one selector. A connection is one order. It is answered with the
agent's number and a descriptor of its process, and stays open while the agent runs: the task asks
there for the exit status, as a parent does by ``waitpid``. An agent is reaped when its task has
asked, or is gone.

It takes no more orders once it has been idle for its time, a file of what it has imported has
changed, a process has ended that it depends on, or SIGTERM came. Then it ends with the last of its
agents. This module may import only the standard library, ``llutil.system``,
``llutil.agent_socket.folder`` and this folder.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from llutil.agent_server.files_on_disk import FilesOnDisk
from llutil.agent_server.forked_agent import become_agent
from llutil.agent_server.order import Order, receive_order
from llutil.agent_server.place import PlaceLock
from llutil.agent_server.same_start import different_variables, inherited
from llutil.agent_server.shown_memory import shown_room, shown_size
from llutil.agent_socket.folder import peer_of
from llutil.system.gc_pause import fork_without_gc
from llutil.system.process_table import stat_of

__all__ = ["AgentServer"]

_SESSION = 5.0
"""Seconds for a fork to have a session of its own: as long as a task waits for the answer."""
_LONGEST_WAIT = 3600.0
"""Seconds that one wait takes at most. The kernel refuses more than 24 days."""


class _RefusedError(Exception):
    """An order is not carried out; the text says why."""


@dataclass(eq=False, slots=True)
class _Agent:
    pid: int
    pidfd: int


class AgentServer:
    """Serves on ``listener``, which lies at the place that it has the lock of.

    ``environment`` is what this process was started with. ``idle`` is how many seconds it may have
    no agent. ``watched`` are the processes that it depends on: number, and start in ticks. ``run``
    is what an agent does; it returns the exit status.
    """

    def __init__(
        self,
        listener: socket.socket,
        place: PlaceLock,
        *,
        environment: Mapping[str, str],
        idle: float,
        watched: Sequence[tuple[int, int]],
        run: Callable[[], int],
    ) -> None:
        self._listener = listener
        self._place = place
        self._environment = environment
        self._idle = idle
        self._run = run
        self._files = FilesOnDisk()
        self._room = shown_room()
        self._agents: set[_Agent] = set()
        self._selector = selectors.DefaultSelector()
        self._idle_since = time.monotonic()
        self._serving = True
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A handler alone does not end a wait: Python goes on waiting after it.
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGTERM, lambda *_: None)
        # An ignored one may be inherited. With it the kernel keeps no exit status of an agent.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.setblocking(False)
        self._on_input(wake_read, partial(self._signalled, wake_read))
        self._on_input(listener, self._accept)
        for pid, start in watched:
            self._watch(pid, start)

    def serve(self) -> None:
        """Serve until the end."""
        while self._serving or self._agents:
            left = None
            if not self._agents:
                left = max(0.0, self._idle_since + self._idle - time.monotonic())
            ready = self._selector.select(None if left is None else min(left, _LONGEST_WAIT))
            for key, _ in ready:
                key.data()
            if not ready and left is not None and left <= _LONGEST_WAIT:
                self._end()

    def _on_input(self, file: Any, act: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, act)

    def _watch(self, pid: int, start: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # it has ended
            self._end()
            return
        stat = stat_of(pid)
        if stat is None or stat.start != start:
            self._end()
        self._on_input(pidfd, partial(self._watched_ended, pidfd))

    def _watched_ended(self, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        self._end()

    def _signalled(self, wake_read: int) -> None:
        os.read(wake_read, 4096)
        self._end()

    def _end(self) -> None:
        """Take no more orders."""
        if self._serving:
            self._serving = False
            self._selector.unregister(self._listener)
            self._listener.close()
            self._place.remove()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # no descriptor is free, and the next wait would end at once, too
            self._end()
            return
        connection.setblocking(False)
        self._on_input(connection, partial(self._ordered, connection))

    def _ordered(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        agent: _Agent | None = None
        try:
            agent = self._carry_out(connection)
            if agent is not None:
                answer = json.dumps({"pid": agent.pid}).encode()
                socket.send_fds(connection, [answer], [agent.pidfd])
                self._on_input(connection, partial(self._asked, connection, agent))
                return
        except (_RefusedError, ValueError, OSError) as error:
            if agent is None:
                with suppress(OSError):
                    connection.send(json.dumps({"refused": str(error)}).encode())
        connection.close()
        if agent is not None:  # whoever asked is gone; the agent finds that out, and ends
            self._reap_later(agent)

    def _carry_out(self, connection: socket.socket) -> _Agent | None:
        """Fork the agent that is asked for; None if nothing is.

        :raises _RefusedError: a fork would not be what is asked for.
        :raises ValueError: what came is no order.
        :raises OSError: there can be no process.
        """
        received = receive_order(connection)
        if received is None:
            return None
        order, (cwd, *fds) = received
        try:
            self._check(connection, order.env)
            agent = self._fork(order, cwd, fds)
        finally:
            for fd in (cwd, *fds):
                os.close(fd)
        self._agents.add(agent)
        return agent

    def _fork(self, order: Order, cwd: int, fds: Sequence[int]) -> _Agent:
        """An agent that has a session of its own, and none of this process's descriptors.

        Before that, a signal to its process group would be one to this process.
        """
        making, made = os.pipe2(os.O_CLOEXEC)
        try:
            # A signal must find the agent's own handlers, not those of this process.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                pid = fork_without_gc()
                if pid == 0:
                    become_agent(order, cwd, fds, mask, made, self._run)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.close(made)
            has_session = _is_closed_within(making, _SESSION)
        finally:
            os.close(making)
        try:
            if not has_session:
                raise _RefusedError(f"the agent had no session of its own after {_SESSION:g} s")
            return _Agent(pid, os.pidfd_open(pid))
        except (OSError, _RefusedError):  # or no descriptor is free
            os.kill(pid, signal.SIGKILL)  # a child that is not reaped keeps its number
            os.waitpid(pid, 0)
            raise

    def _check(self, connection: socket.socket, env: Mapping[str, str]) -> None:
        pid, user = peer_of(connection)
        if user != os.geteuid() or not pid:
            raise _RefusedError("the task is another user's, or in another container")
        if not self._serving:
            raise _RefusedError("it is about to end")
        if changed := self._files.changed():
            self._end()
            raise _RefusedError(f"{changed} has changed since it was imported; the server ends")
        if (threads := len(os.listdir("/proc/self/task"))) > 1:  # noqa: PTH208 - their number
            self._end()
            raise _RefusedError(f"it has {threads} threads, and cannot fork; the server ends")
        if (size := shown_size(env)) > self._room:
            raise _RefusedError(
                f"the agent's environment has {size} bytes, of {self._room} at most"
            )
        if names := different_variables(self._environment, env):
            raise _RefusedError(f"the task has other values of {', '.join(names)}")
        own, theirs = inherited("self"), inherited(pid)
        names = sorted(name for name in own.keys() | theirs if own.get(name) != theirs.get(name))
        if names:
            raise _RefusedError(f"the task's process has other values of {', '.join(names)}")
        # An agent that was asked for long ago may have been started afresh meanwhile.
        hung_up = select.poll()
        hung_up.register(connection, select.POLLRDHUP)
        if hung_up.poll(0):
            raise _RefusedError("the task has not waited for the answer")

    def _asked(self, connection: socket.socket, agent: _Agent) -> None:
        """The task asks for the exit status, or is gone."""
        with suppress(OSError):
            if connection.recv(16):
                pid, status = os.waitpid(agent.pid, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status) if pid else None
                if pid:
                    self._reaped(agent)
                with suppress(OSError):
                    connection.send(json.dumps({"status": code}).encode())
                if not pid:
                    return
                agent.pid = 0
        self._selector.unregister(connection)
        connection.close()
        if agent.pid:
            self._reap_later(agent)

    def _reap_later(self, agent: _Agent) -> None:
        self._on_input(agent.pidfd, partial(self._reap, agent))

    def _reap(self, agent: _Agent) -> None:
        self._selector.unregister(agent.pidfd)
        os.waitpid(agent.pid, 0)
        self._reaped(agent)

    def _reaped(self, agent: _Agent) -> None:
        os.close(agent.pidfd)
        self._agents.discard(agent)
        self._idle_since = time.monotonic()


def _is_closed_within(fd: int, seconds: float) -> bool:
    """Whether the other end of the pipe is closed by then."""
    closed = select.poll()
    closed.register(fd, select.POLLIN)
    return bool(closed.poll(seconds * 1000))
