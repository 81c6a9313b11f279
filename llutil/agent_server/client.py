"""The task's side of an agent server: asks it for an agent, and starts one for the tasks after it.

Whatever is wrong with the server costs the task a moment and a line in its log: then it starts the
agent itself. This module may import only the standard library, ``llutil.system``,
``llutil.agent_socket.folder`` and this folder, and reads no module of the agent.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from llutil.agent_server.order import Order, send_order
from llutil.agent_server.place import place_of, take_problem
from llutil.agent_server.same_start import server_environment
from llutil.agent_server.shown_memory import room
from llutil.agent_socket.folder import peer_of
from llutil.system.exit_status import EXIT_UNKNOWN
from llutil.system.process_table import stat_of

__all__ = ["AgentServerPlace", "ForkedAgent", "NotForkedError", "ancestors"]

# Seconds for a server to fork, or to say how an agent ended. Both take milliseconds. But a machine
# that is so busy that it takes seconds would need far longer to start an agent afresh, and how an
# agent ended nobody else can say.
_ANSWER_TIMEOUT = 5.0
_PROGRAM = ("-m", "llutil.agent_server")


class NotForkedError(Exception):
    """There is no forked agent; the text says why. ``absent``: since there is no server."""

    def __init__(self, text: str, *, absent: bool = False) -> None:
        super().__init__(text)
        self.absent = absent


class ForkedAgent:
    """An agent that a server has forked, as a parent sees it; see ``subprocess.Popen``.

    It is a child of the server ``server_pid``. ``connection`` is the one that it was ordered by.
    """

    def __init__(self, pid: int, pidfd: int, connection: socket.socket, server_pid: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.server_pid = server_pid
        self._connection = connection
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs.

        It is ``EXIT_UNKNOWN`` if the server, which alone can know, has ended or does not answer.
        """
        if self._status is None and _is_ready(self.pidfd, 0.0):
            self._status = self._ask()
        return self._status

    def close(self) -> None:
        """Give up the descriptors. The agent may run on."""
        self._connection.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _ask(self) -> int:
        try:
            self._connection.settimeout(_ANSWER_TIMEOUT)
            self._connection.send(b"?")
            status = json.loads(self._connection.recv(64))["status"]
        except (OSError, ValueError):
            return EXIT_UNKNOWN
        return EXIT_UNKNOWN if status is None else int(status)


class AgentServerPlace:
    """Where a server for agents of the interpreter ``python`` is, or may be started.

    ``python`` is a path or a name that is looked for along the ``PATH`` of ``environment``, which
    is a task's, as its agent's is without what the DAG adds.

    :raises OSError: there is no such interpreter, or no folder for the socket.
    """

    def __init__(
        self, python: str, environment: Mapping[str, str], folder: Path | None = None
    ) -> None:
        found = shutil.which(python, path=environment.get("PATH"))
        if found is None or not os.path.isabs(found):  # noqa: PTH117 - a text is wanted
            raise FileNotFoundError(f"python {python!r} is no absolute path")
        self._python = found
        self._environment = environment
        self.path = place_of(found, folder)

    def fork(self, order: Order, cwd: str | None, fds: Sequence[int]) -> ForkedAgent:
        """The agent that is ordered, with ``fds`` at the order's places.

        :raises NotForkedError: there is none.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            server_pid = self._connect(connection)
            try:
                folder = os.open(cwd or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    send_order(connection, order, folder, fds)
                finally:
                    os.close(folder)
                if not _is_ready(connection, _ANSWER_TIMEOUT):
                    raise NotForkedError(
                        f"process {server_pid} has not answered within {_ANSWER_TIMEOUT:g} s"
                    )
                data, pidfds, _, _ = socket.recv_fds(connection, 4096, 1)
                return self._forked(data, pidfds, connection, server_pid)
            except OSError as error:
                raise NotForkedError(f"process {server_pid}: {error}") from error
        except BaseException:
            connection.close()  # whoever was forked all the same has no task, and ends
            raise

    def _connect(self, connection: socket.socket) -> int:
        try:
            connection.connect(str(self.path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotForkedError("there is none", absent=True) from error
        except OSError as error:
            raise NotForkedError(f"{self.path}: {error}") from error
        pid, user = peer_of(connection)
        if user != os.geteuid():
            raise NotForkedError(f"{self.path} is served by user {user}")
        stat = stat_of(pid)
        if stat is not None and stat.state in "tT":
            raise NotForkedError(f"process {pid} is stopped")
        return pid

    def _forked(
        self, data: bytes, pidfds: Sequence[int], connection: socket.socket, server_pid: int
    ) -> ForkedAgent:
        for fd in pidfds:
            os.set_inheritable(fd, False)
        try:
            answer = json.loads(data)
        except ValueError:
            answer = {}
        if "pid" in answer and pidfds:
            return ForkedAgent(int(answer["pid"]), pidfds[0], connection, server_pid)
        for fd in pidfds:
            os.close(fd)
        raise NotForkedError(
            f"process {server_pid}: {answer.get('refused', 'it ended before it answered')}"
        )

    def start_server(self, idle: float, program: Sequence[str] = _PROGRAM) -> None:
        """Start a server for later tasks, which ends when it has had no agent for ``idle`` seconds;
        if there is one, the new one ends at once.

        :raises OSError: it cannot be started.
        """
        watched = [f"{pid}:{start}" for pid, start in ancestors()]
        process = subprocess.Popen(
            [
                *(self._python, "-u", *program, str(self.path), "--idle", f"{idle:g}"),
                *(("--watch", *watched) if watched else ()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=server_environment(self._environment) | room(),
            start_new_session=True,
        )
        # It outlives this process. Without an exit code Popen would warn that it was not reaped.
        process.returncode = 0

    def problem(self) -> str:
        """Why the last server that was started could not start, once; "" if it could."""
        return take_problem(self.path)


def ancestors() -> list[tuple[int, int]]:
    """The processes above this task that a server should not outlive: number and start in ticks.

    Airflow's supervisor, a task's parent, may be there for this task alone. So they begin with its
    parent, unless that is process 1.
    """
    found = []
    stat = stat_of(os.getpid())
    while stat is not None and stat.parent > 1:
        stat = stat_of(stat.parent)
        if stat is not None:
            found.append(stat.key)
    return found[1:] or found


def _is_ready(file: int | socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(1000 * seconds))
