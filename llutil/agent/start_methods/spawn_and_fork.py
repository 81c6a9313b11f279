"""Two ways to start workers: ``Spawn``, fresh interpreters, and ``Fork``, copies of this process.

The third is in ``forkserver_client``. All three start them from a rank server. ``Fork``'s is a copy
of this process itself, made when the job begins: before there are threads of the agent's, and
descriptors that a worker must not keep.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import llutil
from llutil.agent.start_methods.forked_worker import run_forked_worker
from llutil.agent.start_methods.rank_server import ForkRefused, RankServer
from llutil.agent.start_methods.rank_server_loop import serve, set_up_process
from llutil.agent.start_methods.server_process import ForkedServerProcess, ServerProcess
from llutil.agent.start_methods.starter import (
    StartRequest,
    WorkerProcess,
    interpreter_command,
)
from llutil.system.gc_pause import fork_without_gc

__all__ = ["WORKER_INTERPRETER", "Fork", "Spawn"]

WORKER_INTERPRETER = "from llutil.agent.worker_side.worker_main import main"
"""What a fresh interpreter runs first; the rank server adds the call."""


class Spawn:
    """A fresh interpreter for every worker. It starts slowest, and has no state of the agent.

    ``env`` is the environment of the process that starts them: it carries the job's mark.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._server = RankServer(self._start_server)

    @property
    def processes(self) -> dict[int, int]:
        """See ``Starter``."""
        return self._server.processes

    @property
    def ready(self) -> dict[int, int]:
        """See ``Starter``; there are none."""
        return {}

    def prepare(self, count: int) -> None:
        """See ``Starter``: an interpreter that waits would not be a fresh one."""

    def start(self, request: StartRequest) -> WorkerProcess:
        """One more interpreter."""
        worker = self._server.start(request, interpreter_command(WORKER_INTERPRETER))
        assert not isinstance(worker, ForkRefused)
        return worker

    def close(self) -> None:
        """End the process that starts them."""
        self._server.close()

    def _start_server(self) -> tuple[ServerProcess, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            home = str(Path(llutil.__file__).parent.parent)
            code = (
                f"import sys; sys.path.append({home!r}); "
                "from llutil.agent.start_methods.rank_server_loop import main; "
                f"main({theirs.fileno()}, {os.getpid()})"
            )
            # With -I and -S it starts fast, and no module of the user's can keep it from starting.
            # With -I it ignores PYTHONUTF8. It must encode the workers' environment as this process
            # decoded its own.
            utf8 = f"utf8={sys.flags.utf8_mode}"
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", utf8, "-c", code],
                stdin=subprocess.DEVNULL,
                env=self._env,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return process, ours


class Fork:
    """A copy of this process for every worker. ``direct`` is the user's function, called without
    pickling.

    ``inherited`` returns the agent's descriptors that a worker must not keep. An inherited pipe end
    would hide an exit; an inherited listening socket would keep a port in use. ``on_copy`` is
    called in the copy, with all signals blocked, to undo what the agent has set for itself.
    """

    def __init__(
        self,
        direct: Callable[[], Any] | None,
        inherited: Callable[[], set[int]],
        on_copy: Callable[[], None] = lambda: None,
    ) -> None:
        self._direct = direct
        self._inherited = inherited
        self._on_copy = on_copy
        self._server = RankServer(self._fork_server)

    @property
    def processes(self) -> dict[int, int]:
        """See ``Starter``."""
        return self._server.processes

    @property
    def ready(self) -> dict[int, int]:
        """See ``Starter``."""
        return self._server.ready

    def prepare(self, count: int) -> None:
        """See ``Starter``."""
        self._server.prepare(count)

    def start(self, request: StartRequest) -> WorkerProcess:
        """One more copy."""
        worker = self._server.start(request)
        assert not isinstance(worker, ForkRefused)
        return worker

    def close(self) -> None:
        """End the copy that the others are made from."""
        self._server.close()

    def _fork_server(self) -> tuple[ServerProcess, socket.socket]:
        agent = os.getpid()
        inherited = self._inherited()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()  # else the copies would print this process's buffer again
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A signal that comes before the copy blocks it would run the agent's handlers there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with theirs:
                pid = fork_without_gc()
                if pid == 0:
                    close = {*inherited, ours.fileno()}
                    _run_copy(theirs, agent, close, self._direct, self._on_copy)
            return ForkedServerProcess(pid), ours
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_copy(
    channel: socket.socket,
    agent: int,
    close: set[int],
    direct: Callable[[], Any] | None,
    on_copy: Callable[[], None],
) -> None:
    """Be a rank server that forks copies of what the agent was. It never returns."""
    try:
        os.setsid()
        set_up_process()
        on_copy()
        with suppress(ValueError):  # only the main thread may
            signal.set_wakeup_fd(-1)
        for fd in close - {0, 1, 2}:
            with suppress(OSError):
                os.close(fd)
        serve(channel.detach(), agent, partial(run_forked_worker, direct=direct))
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        os._exit(70)  # reached only if the lines above failed; the copy must not run on
