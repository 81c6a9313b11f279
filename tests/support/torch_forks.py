"""Processes forked from one that has imported torch already: an agent that starts in a moment
instead of in seconds.

``TorchForks`` is the side of whoever wants processes; this file as a script is the process that
forks them. (Not by ``python -m``: at each event torch's handler looks for the module of each frame,
and goes through all modules for those of runpy, which have none; 32 nodes take five times as long.)
It uses no grpc, has one thread only, and ends when its standard input does, and its children with
it. A child is in a session of its own, as if it had been started from a shell, and calls one
function; when that returns, or raises, it ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from llutil.system.process_inheritance import die_with_parent

__all__ = ["Forked", "TorchForks"]

_AGENT = (
    "llutil.launcher.run",
    "llutil.agent.ledger_agent",
    "llutil.ledgers.etcd.ledger",
    "llutil.ledgers.served.ledger",
    "llutil.ledgers.served.serving_node",
    "llutil.ledgers.zookeeper.ledger",
    "psutil",
)
_START = 120.0  # seconds for torch to be imported on a machine that does much else


class Forked:
    """A process of a torch_forks's. ``output`` is where it prints."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid = pid
        self.output = output
        self._exit_fd = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self.ended(0.0)

    def ended(self, seconds: float) -> bool:
        """Wait for its end; False if it still runs after so many seconds."""
        return bool(select.select([self._exit_fd], [], [], max(0.0, seconds))[0])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._exit_fd, number)

    def close(self) -> None:
        """Kill it if it still runs; give the descriptor back."""
        self.signal(signal.SIGKILL)
        self.ended(_START)
        os.close(self._exit_fd)


class TorchForks:
    """The other side of a process that forks. Its children find these modules imported: by default,
    an agent's.
    """

    def __init__(self, *imports: str) -> None:
        from tests.support.shown_environment import ROOM

        self._imported = [*(imports or _AGENT)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **ROOM},
        )

    def fork(
        self, call: str, args: Mapping[str, Any], output: Path, env: Mapping[str, str] | None = None
    ) -> Forked:
        """A child that calls ``module:function`` with these keywords, and with ``env`` in its
        environment.
        """
        order = {"call": call, "args": dict(args), "output": str(output), "env": dict(env or {})}
        return Forked(self._ask(order), output)

    def import_ahead(self, *modules: str) -> None:
        """Have later children find these modules imported, too."""
        if new := [module for module in modules if module not in self._imported]:
            self._imported += new
            self._ask({"imports": new})

    def _ask(self, order: Mapping[str, Any]) -> int:
        """What it answers: a pid, or 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the torch_forks has ended")
        return int(answer)

    def close(self) -> None:
        """End the torch_forks, and what is left of its children."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_START)
        self._process.stdout.close()


def _child(order: Mapping[str, Any], parent: int) -> NoReturn:
    from tests.support.shown_environment import ROOM, take_environment

    status = 1
    try:
        os.setsid()
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDONLY)
        out = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for fd, place in ((null, 0), (out, 1), (out, 2)):
            os.dup2(fd, place)
        os.close(null)
        os.close(out)
        own = {name: value for name, value in os.environ.items() if name not in ROOM}
        take_environment({**own, **order["env"]})
        module, _, function = order["call"].partition(":")
        getattr(importlib.import_module(module), function)(**order["args"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _import(names: Iterable[str]) -> None:
    for name in names:
        importlib.import_module(name)
    gc.freeze()  # or each child's first collection would copy all that they share
    assert len(list(Path("/proc/self/task").iterdir())) == 1


def _main() -> None:
    sys.path[0] = str(Path(__file__).parents[2])  # and not this script's own folder
    _import([*sys.argv[1:], "tests.support.shown_environment"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever holds our standard input
    parent = os.getpid()
    for line in sys.stdin.buffer:
        with suppress(
            ChildProcessError
        ):  # only now: the pids of the last ones are known to others since
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        order = json.loads(line)
        pid = 0
        if "imports" in order:
            _import(order["imports"])
        elif not (pid := os.fork()):
            _child(order, parent)
        os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    _main()
