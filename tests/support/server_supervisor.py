"""A process that runs the servers of the tests, and sees that nothing of them is left, whatever
happens.

    python -m tests.support.server_supervisor '{"commands": {"name": ["program", "argument"]},
    "folder": "...", ...}'

It lives for as long as its standard input is open. When that closes (the test run has finished with
the servers, or has itself been killed in whatever way), or when one command ends by itself, it asks
the commands to end, kills what remains of them and of everything that they started, and exits. A
command that is to be revived is started again instead, as a service manager does it; what is left
of its session is killed before.
"Everything" includes processes in sessions of their own and processes whose parent has died: the
supervisor is a child subreaper (Linux, see prctl(2)), so all of them stay below it in the tree.

This module may import nothing but the standard library and psutil, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types

__all__ = ["SupervisedServers"]

_PR_SET_CHILD_SUBREAPER = 36
_KILL = 30.0  # seconds; a process that survives SIGKILL for so long is stuck in the kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedServers:
    """What a supervisor is to do. ``commands`` maps a name to a command line; it runs in
    ``folder``, its output goes to ``name.log`` there, and its pid is in ``name.pid``. ``grace`` is
    how long, in seconds, they have to end once asked to. ``remove`` says whether the folder goes
    when the standard input was closed. Commands of the names ``revived`` are started again when
    they end.
    """

    commands: dict[str, list[str]]
    folder: str
    grace: float
    remove: bool
    revived: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        """The command line of a supervisor that follows these orders; run it from the repository's
        root.
        """
        return [sys.executable, "-m", "tests.support.server_supervisor", json.dumps(asdict(self))]


def _reap() -> Iterator[int]:
    """The ids of children, adopted ones included, that have ended since the last call."""
    with suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            yield pid


def _run(orders: SupervisedServers) -> set[int]:
    """Start the commands; return those still alive once there is a reason to end."""
    # A Popen that is dropped is reaped when the next one is made, and its end would go unseen here.
    kept = {name: _start(orders, name) for name in orders.commands}
    names = {process.pid: name for name, process in kept.items()}
    while len(names) == len(orders.commands):
        if select.select([0], [], [], 0.2)[0] and not os.read(0, 4096):
            break
        for pid in _reap():
            name = names.pop(pid, None)
            if name in orders.revived:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                kept[name] = _start(orders, name)
                names[kept[name].pid] = name
    return {*names}


def _start(orders: SupervisedServers, name: str) -> subprocess.Popen[bytes]:
    with Path(orders.folder, f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            orders.commands[name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=orders.folder,
            start_new_session=True,
        )
    Path(orders.folder, f"{name}.pid").write_text(str(process.pid))
    return process


def _end(alive: Collection[int], grace: float) -> None:
    """SIGTERM to the commands that are still alive; SIGKILL to all that is left after ``grace``
    seconds.
    """
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while alive and time.monotonic() < deadline:
        alive = set(alive).difference(_reap())
        time.sleep(0.05)
    deadline = time.monotonic() + _KILL
    while left := psutil.Process().children(recursive=True):  # children appear while others die
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alive {_KILL:.0f} s after SIGKILL: {left}")
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for _ in _reap():
            pass
        time.sleep(0.02)


def _main() -> int:
    orders = SupervisedServers(**json.loads(sys.argv[1]))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper, which needs Linux 3.4")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever holds our standard input
    alive = _run(orders)
    asked = len(alive) == len(orders.commands)
    _end(alive, orders.grace)
    if asked and orders.remove:
        shutil.rmtree(orders.folder, ignore_errors=True)
    return 0 if asked else 1


if __name__ == "__main__":
    sys.exit(_main())
