"""Processes of Python that have torch imported when they begin: they are forked from one that has,
in a moment instead of in seconds.

``WarmPython.popen`` stands in for ``subprocess.Popen``. The process runs the same command line with
the same environment, descriptors, working directory and session, and ``/proc`` shows its
environment. But its parent is the process that it is forked from, ``/proc`` shows that one's
command line, and nothing that Python and torch read when they start was read again. So a command
line which would start otherwise is started afresh: another interpreter, other variables that are
read once, a module on its path that hides one that is imported.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from llutil.agent.worker_side.fork_environment import unsettable_after_fork
from llutil.system.send_signal import send_signal_by_pidfd

__all__ = ["Forked", "WarmPython", "command"]

_START = 120.0  # seconds for torch to be imported on a machine that does much else
_IMPORTED = {
    *("sitecustomize", "usercustomize", "torch", "numpy", "msgspec", "cloudpickle", "psutil"),
    *sys.stdlib_module_names,
}
_MAY_DIFFER = {"PYTHONPATH", "PYTHONUNBUFFERED", "TMPDIR"}


def command(address: Path) -> list[str]:
    """The command line of the process to fork from, which listens at ``address``."""
    return [
        sys.executable,
        "-u",
        str(Path(__file__).with_name("warm_python_main.py")),
        str(address),
    ]


class Forked:
    """A process that was forked, as ``subprocess.Popen`` shows one. It is a zombie until it is
    waited for.
    """

    def __init__(self, server: socket.socket) -> None:
        self.returncode: int | None = None
        pid, (self._pidfd,), _, _ = socket.recv_fds(server, 16, 1)
        self.pid = int(pid)
        self._server_fd = server.detach()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None and self._ends(0):
            os.write(self._server_fd, b"?")
            self.returncode = int(os.read(self._server_fd, 16))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended.

        :raises subprocess.TimeoutExpired: it has not, after so many seconds.
        """
        if self.returncode is None and not self._ends(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            send_signal_by_pidfd(self._pidfd, number)

    def terminate(self) -> None:
        """Send it SIGTERM, unless it has ended."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _ends(self, seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(None if seconds is None else 1000 * seconds))

    def __del__(self) -> None:
        os.close(self._server_fd)
        os.close(self._pidfd)


class WarmPython:
    """Whoever may start processes by a process that listens at ``address`` and was started with the
    environment ``env``.
    """

    def __init__(self, address: Path, env: Mapping[str, str]) -> None:
        self._address = str(address)
        self._env = {name: env[name] for name in env if name not in _MAY_DIFFER}

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        pass_fds: Collection[int],
        env: Mapping[str, str],
        start_new_session: bool,
        cwd: str | None = None,
    ) -> Forked | subprocess.Popen[bytes]:
        """The process of this command line; see ``subprocess.Popen``."""
        streams: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        if not self._is_warm_for(argv, env, cwd):
            return subprocess.Popen(
                argv,
                **streams,
                pass_fds=pass_fds,
                env=env,
                cwd=cwd,
                start_new_session=start_new_session,
            )
        order = {
            "argv": argv,
            "env": dict(env),
            "cwd": str(Path.cwd() if cwd is None else cwd),
            "path": _path(env),
            "session": start_new_session,
            "places": [0, 1, 2, *pass_fds],
        }
        body = os.memfd_create("order")
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            os.pwrite(body, json.dumps(order).encode(), 0)
            given = (null if fd == subprocess.DEVNULL else fd for fd in streams.values())
            with self._connect() as server:
                socket.send_fds(server, [b"!"], [body, *given, *pass_fds])
                return Forked(server)
        finally:
            os.close(body)
            os.close(null)

    def _connect(self) -> socket.socket:
        """A connection; it answers when all is imported."""
        deadline = time.monotonic() + _START
        while True:
            server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                server.connect(self._address)
            except OSError:
                server.close()
                assert time.monotonic() < deadline, f"nobody listens at {self._address}"
                time.sleep(0.01)
            else:
                return server

    def _is_warm_for(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> bool:
        """Whether such a process would start as the waiting one has."""
        own = {name: env[name] for name in env if name not in _MAY_DIFFER}
        folders = [Path(folder) for folder in _path(env) if Path(folder).is_dir()]
        paths = (path for folder in folders for path in folder.iterdir())
        return (
            argv[0] == sys.executable
            and argv[1] == "-u"
            and argv[2] in {"-m", "-c"}
            and not unsettable_after_fork(self._env, own)
            and not any(path.stem in _IMPORTED for path in paths)
            and (cwd is None or Path(cwd).is_dir())
        )


def _path(env: Mapping[str, str]) -> list[str]:
    return [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
