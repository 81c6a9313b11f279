"""``Starter``, which starts a worker process, and two of them: ``Spawn`` and ``Fork``. The third is
in ``forkserver_client``.

Each gives the worker its own session, its environment, its standard streams, the order and the
outcome pipe. Each makes the kernel kill the worker when the process that started it dies. None uses
``multiprocessing``: its spawn imports the caller's ``__main__`` again, which under Airflow is
Airflow itself and fails; its fork server's children outlive a killed agent (both measured with
torch 2.13 and Airflow 3.3.2).

A starter never waits for a worker, and of a worker it owns only the descriptor
``WorkerProcess.exit_fd``. This module may import nothing of ours but ``worker_side`` and
``llutil.system``.
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
from llutil.system.process_inheritance import die_with_parent
from llutil.system.process_table import stat_of
from llutil.system.send_signal import Sent, send_signal_by_pidfd

__all__ = [
    "Fork",
    "Spawn",
    "StartRequest",
    "Starter",
    "WorkerProcess",
    "exit_status_of",
    "fork_without_gc",
    "interpreter_command",
    "replace_standard_streams",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """What one rank starts with. If ``stdin`` is None, the worker's standard input is empty. If
    ``stdout`` or ``stderr`` is None, it has the starter's own.
    """

    order_fd: int
    outcome_fd: int
    stdin: int | None = None
    stdout: int | None
    stderr: int | None
    env: Mapping[str, str]


class WorkerProcess(Protocol):
    """A started worker, which leads a session. ``start`` is when it started, in the kernel's ticks.
    ``exit_fd`` becomes readable when it has ended; then ``poll`` returns the status.

    Its number is given to no other process before ``close``.
    """

    pid: int
    start: int
    exit_fd: int

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""

    def send_signal(self, number: int, *, group: bool) -> Sent:
        """Send it the signal ``number``, or the process group that it leads."""

    def close(self) -> None:
        """Close the descriptors."""


class Starter(Protocol):
    """Starts workers. ``pids`` are processes of the starter's own, which live on between rounds."""

    @property
    def pids(self) -> frozenset[int]:
        """The pid of a server that workers are started from; else none."""

    def start(self, request: StartRequest) -> WorkerProcess:
        """One more worker process."""

    def close(self) -> None:
        """End the processes of the starter's own."""


def interpreter_command(call: str) -> list[str]:
    """The command of a fresh interpreter that runs ``call`` of this package, wherever the package
    is installed.

    It has the flags of this interpreter (-O, -W, -X and others), as ``multiprocessing`` gives them.
    Not -S, since it has to find the libraries by itself.

    ``-c`` puts the working directory first on ``sys.path``, where a user's ``json.py`` would hide
    the library's. So it is removed, unless PYTHONSAFEPATH did that already. The package's own
    folder goes last.
    """
    home = str(Path(llutil.__file__).parent.parent)
    code = f"import sys; sys.flags.safe_path or sys.path.pop(0); sys.path.append({home!r}); {call}"
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    flags = [flag for flag in flags if flag != "-S"]
    return [sys.executable, "-u", *flags, "-c", code]


class _Child:
    """A worker that is a child of this process, watched through a pidfd (pidfd_open(2)).

    It is reaped only when it is closed. Until then no other process can get its number, which is
    also the number of a session whose members are to be ended. A job may run for days after its
    first rank has returned.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit_fd = os.pidfd_open(pid)
        stat = stat_of(pid)
        self.start = 0 if stat is None else stat.start
        self._status: int | None = None

    def poll(self) -> int | None:
        """See ``WorkerProcess``."""
        if self._status is None:
            self._status = exit_status_of(self.pid)
        return self._status

    def send_signal(self, number: int, *, group: bool) -> Sent:
        """See ``WorkerProcess``."""
        return send_signal_by_pidfd(self.exit_fd, number, self.pid if group else 0)

    def close(self) -> None:
        """See ``WorkerProcess``."""
        os.close(self.exit_fd)
        with suppress(ChildProcessError):  # another wait in this process has reaped it
            os.waitpid(self.pid, os.WNOHANG)


def exit_status_of(pid: int) -> int | None:
    """The exit status of the child ``pid``, which stays unreaped; None while it runs."""
    try:
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # Another wait in this process took the status. Only the child's end is known.
        return 1
    if end is None:
        return None
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


class Spawn:
    """A fresh interpreter for every worker. It starts slowest, and has no state of the agent."""

    pids: frozenset[int] = frozenset()

    def start(self, request: StartRequest) -> WorkerProcess:
        """One more interpreter."""
        call = (
            "from llutil.agent.worker_side.worker_main import main; "
            f"main({request.order_fd}, {request.outcome_fd}, {os.getpid()})"
        )
        popen = subprocess.Popen(
            interpreter_command(call),
            stdin=subprocess.DEVNULL if request.stdin is None else request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            env=dict(request.env),
            pass_fds=(request.order_fd, request.outcome_fd),
            start_new_session=True,
        )
        child = _Child(popen.pid)
        # ``_Child`` waits for the process. Without this, Popen's finalizer would wait for it too.
        popen.returncode = 0
        return child

    def close(self) -> None:
        """There is nothing to end."""


class Fork:
    """A copy of this process for every worker. ``direct`` is the user's function, called without
    pickling.

    ``inherited`` returns the agent's descriptors that a worker must not keep. An inherited pipe end
    would hide an exit; an inherited listening socket would keep a port in use.
    """

    pids: frozenset[int] = frozenset()

    def __init__(self, direct: Callable[[], Any] | None, inherited: Callable[[], set[int]]) -> None:
        self._direct = direct
        self._inherited = inherited

    def start(self, request: StartRequest) -> WorkerProcess:
        """One more copy."""
        parent = os.getpid()
        inherited = self._inherited()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()  # else the child would print the parent's buffer again
        # A signal that comes before the child has its own handlers would run the agent's, and be
        # lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = fork_without_gc()
            if pid == 0:
                _in_fork(request, parent, inherited, self._direct)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _Child(pid)

    def close(self) -> None:
        """There is nothing to end."""


def fork_without_gc() -> int:
    """``os.fork``; the child never collects objects of the parent.

    A finalizer of a native object (a gRPC channel's) may wait for a thread that exists only in the
    parent, or free what such a thread still used. Then the child hangs, or dies of SIGSEGV. Garbage
    collection is off from before the fork, because fork handlers of other libraries run in the
    child before ``os.fork`` returns there (Airflow 3.3's disposes of its database engine).
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


def _in_fork(
    request: StartRequest, parent: int, close: set[int], direct: Callable[[], Any] | None
) -> None:
    """Become a worker in a forked child. It never returns."""
    try:
        os.setsid()
        die_with_parent(parent)
        replace_standard_streams(request.stdin, request.stdout, request.stderr)
        for fd in close - {0, 1, 2, request.order_fd, request.outcome_fd}:
            with suppress(OSError):
                os.close(fd)
        os.environ.clear()
        os.environ.update(request.env)
        order = read_order(request.order_fd)
        worker_main.run_forked(order, request.order_fd, request.outcome_fd, direct)
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        os._exit(70)  # reached only if the lines above failed; the child must not run on


def replace_standard_streams(stdin: int | None, stdout: int | None, stderr: int | None) -> None:
    """Connect a forked child's standard streams, and Python's objects for them, to these
    descriptors; see ``StartRequest``.
    """
    if stdin is None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
    else:
        os.dup2(stdin, 0)
    sys.stdin = os.fdopen(0, closefd=False)  # without the parent's buffer
    if stdout is not None:
        os.dup2(stdout, 1)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False, errors="backslashreplace")
    if stderr is not None:
        os.dup2(stderr, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
