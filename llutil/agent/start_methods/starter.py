"""What all ways to start a worker have in common: ``Starter``, and pieces that they are made of.

Each way gives the worker its own session, its environment, its standard streams, the order and the
outcome pipe. Each starts it from a process of ours that adopts the orphans below it, a rank server:
see ``rank_server``. The kernel kills the worker when that process dies. None uses
``multiprocessing``: its spawn imports the caller's ``__main__`` again, which under Airflow is
Airflow itself and fails; its fork server's children outlive a killed agent (both measured with
torch 2.13 and Airflow 3.3.2).

A starter never waits for a worker, and of a worker it owns only the descriptors in
``WorkerProcess``. This module may import nothing of ours but ``llutil.system``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import llutil
from llutil.errors import InfrastructureError
from llutil.system.send_signal import Sent

__all__ = [
    "RankServerLostError",
    "StartRequest",
    "Starter",
    "WorkerProcess",
    "interpreter_command",
]


class RankServerLostError(InfrastructureError):
    """The rank server died in the middle of a round's start, and with it the workers that it had
    started.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """What one rank starts with. If ``stdin`` is None, the worker's standard input is empty. If
    ``stdout`` or ``stderr`` is None, it has the starter's own. ``shared_fd`` is where it receives
    what it shares with the launching process, if there is anything. ``check`` is called while it is
    waited for, and raises if that should end.
    """

    order_fd: int
    outcome_fd: int
    stdout: int | None
    stderr: int | None
    env: Mapping[str, str]
    stdin: int | None = None
    shared_fd: int | None = None
    check: Callable[[], None] = lambda: None


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
    """Starts workers."""

    @property
    def processes(self) -> dict[int, int]:
        """The number and the start, in ticks, of the process that workers are started from. It
        leads a session and lives on between rounds.
        """

    @property
    def ready(self) -> dict[int, int]:
        """The number and the start, in ticks, of each process that waits to become a worker. Each
        leads a session.
        """

    def prepare(self, count: int) -> None:
        """Have up to ``count`` processes ready to become workers, if that makes starts faster.
        Returns at once.
        """

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
    as_flags = subprocess._args_from_interpreter_flags  # type: ignore[attr-defined]  # noqa: SLF001
    flags: list[str] = as_flags()
    flags = [flag for flag in flags if flag != "-S"]
    return [sys.executable, "-u", *flags, "-c", code]
