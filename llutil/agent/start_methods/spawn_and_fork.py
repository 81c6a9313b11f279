"""How to start a worker process, ``Starter``, and two ways to do it: ``Spawn`` and ``Fork``. The
third is ``warm``'s.

All give the worker a session of its own, its environment, its standard streams, the order and the
outcome pipe, and tie its life to its starter's. None uses ``multiprocessing``: its spawn imports
the caller's ``__main__`` again, which under Airflow is Airflow itself and fails; its fork server's
children outlive a killed agent (both measured with torch 2.13 and Airflow 3.3.2).

A starter never waits for a worker, and owns no descriptor of one but ``WorkerProcess.exit_fd``.
This module may import nothing of ours but this room's ``bootstrap``, ``order`` and ``processes``.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import llutil
from llutil.agent.worker_side import worker_main
from llutil.agent.worker_side.work_order import read_order
from llutil.system.processes import STOP_SIGNALS, die_with_parent

__all__ = [
    "Fork",
    "Spawn",
    "Start",
    "Starter",
    "WorkerProcess",
    "ended_with",
    "fork_uncollected",
    "interpreter",
    "place_streams",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one rank starts with. ``stdout`` and ``stderr`` None mean: the starter's own."""

    order_fd: int
    outcome_fd: int
    stdout: int | None
    stderr: int | None
    env: Mapping[str, str]


class WorkerProcess(Protocol):
    """A started worker. ``exit_fd`` becomes readable when it has ended; ``poll`` then gives the
    status.
    """

    pid: int
    exit_fd: int

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""

    def close(self) -> None:
        """Give back ``exit_fd``."""


class Starter(Protocol):
    """Starts workers. ``pids`` are processes of its own, which live on between rounds."""

    @property
    def pids(self) -> frozenset[int]:
        """None, unless there is something that workers are started from."""

    def start(self, start: Start) -> WorkerProcess:
        """One more worker process."""

    def close(self) -> None:
        """End what the starter itself keeps running."""


def interpreter(call: str) -> list[str]:
    """The command of a fresh interpreter that runs ``call`` of this package, wherever the package
    lies.

    ``-c`` puts the working directory first on ``sys.path``, where a user's ``json.py`` would be
    found before the library's: it is taken off, unless PYTHONSAFEPATH kept it away. The package's
    own folder goes last.
    """
    home = str(Path(llutil.__file__).parent.parent)
    code = f"import sys; sys.flags.safe_path or sys.path.pop(0); sys.path.append({home!r}); {call}"
    return [sys.executable, "-u", "-c", code]


class _Child:
    """A worker that is this process's own child, watched through a pidfd (pidfd_open(2)).

    It is reaped only when it is closed: until then nobody else can get its number, which is also
    that of a session whose members are to be ended. A job may run for days after its first rank has
    returned.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit_fd = os.pidfd_open(pid)
        self._status: int | None = None

    def poll(self) -> int | None:
        """See ``WorkerProcess``."""
        if self._status is None:
            self._status = ended_with(self.pid)
        return self._status

    def close(self) -> None:
        """See ``WorkerProcess``."""
        os.close(self.exit_fd)
        with suppress(ChildProcessError):  # somebody else's wait was faster
            os.waitpid(self.pid, os.WNOHANG)


def ended_with(pid: int) -> int | None:
    """The exit status of the child ``pid``, which stays unreaped; None while it runs."""
    try:
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return (
            1  # somebody else's wait took the status: all that is known is that the process ended
        )
    if end is None:
        return None
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


class Spawn:
    """A fresh interpreter for every worker: the slowest start and the cleanest."""

    pids: frozenset[int] = frozenset()

    def start(self, start: Start) -> WorkerProcess:
        """One more interpreter."""
        call = (
            "from llutil.agent.worker_side.worker_main import main; "
            f"main({start.order_fd}, {start.outcome_fd}, {os.getpid()})"
        )
        popen = subprocess.Popen(
            interpreter(call),
            stdin=subprocess.DEVNULL,
            stdout=start.stdout,
            stderr=start.stderr,
            env=dict(start.env),
            pass_fds=(start.order_fd, start.outcome_fd),
            start_new_session=True,
        )
        child = _Child(popen.pid)
        popen.returncode = (
            0  # the wait is ours: without this, Popen's finalizer would compete for the status
        )
        return child

    def close(self) -> None:
        """Nothing is kept running."""


class Fork:
    """A copy of this very process. ``direct`` is called as it is: nothing has to be pickled to get
    there.

    ``inherited`` names the descriptors of the agent that a worker must not keep: an inherited pipe
    end would hide an exit, an inherited listening socket would keep a port.
    """

    pids: frozenset[int] = frozenset()

    def __init__(self, direct: Callable[[], Any] | None, inherited: Callable[[], set[int]]) -> None:
        self._direct = direct
        self._inherited = inherited

    def start(self, start: Start) -> WorkerProcess:
        """One more copy."""
        parent = os.getpid()
        inherited = self._inherited()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()  # or the child prints the parent's buffer again
        # A signal that came before the child has handlers of its own would run the agent's, and be
        # lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = fork_uncollected()
            if pid == 0:
                _in_fork(start, parent, inherited, self._direct)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _Child(pid)

    def close(self) -> None:
        """Nothing is kept running."""


def fork_uncollected() -> int:
    """``os.fork``, whose child leaves alone what the parent left for the collector.

    A finalizer of a native object (a gRPC channel's) may wait for a thread that only the parent
    has, or free what one still used: the child hangs, or dies of SIGSEGV. The collector is off from
    before the fork, since others' handlers run code in the child before ``os.fork`` returns there
    (Airflow 3.3's disposes of its database engine).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        pid = os.fork()
        if pid == 0:
            gc.freeze()
        return pid
    finally:
        if collects:
            gc.enable()


def _in_fork(start: Start, parent: int, close: set[int], direct: Callable[[], Any] | None) -> None:
    """Become a worker in a forked child; never returns."""
    try:
        os.setsid()
        die_with_parent(parent)
        place_streams(start.stdout, start.stderr)
        for fd in close - {0, 1, 2, start.order_fd, start.outcome_fd}:
            with suppress(OSError):
                os.close(fd)
        os.environ.clear()
        os.environ.update(start.env)
        order = read_order(start.order_fd)
        os.close(start.order_fd)
        worker_main.run_forked(order, start.outcome_fd, direct)
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        os._exit(70)  # only reached when the lines above failed: nothing may go on


def place_streams(stdout: int | None, stderr: int | None) -> None:
    """Put a forked child's standard streams where they belong, Python's objects included."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = os.fdopen(0, closefd=False)  # and not what the parent has read ahead
    if stdout is not None:
        os.dup2(stdout, 1)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False, errors="backslashreplace")
    if stderr is not None:
        os.dup2(stderr, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
