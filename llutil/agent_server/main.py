"""The agent server's process, from its arguments to its end.

It holds the lock of its place from its beginning. Its socket is there once everything is imported:
a task that comes before that finds none, and waits for nothing. This module may import
``llutil.agent_process``, and what lies below it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from llutil.agent_server.place import PlaceLock, listener_at, take_problem, write_problem
from llutil.agent_server.server import AgentServer
from llutil.agent_server.shown_memory import move_environment
from llutil.agent_socket.folder import make_private

__all__ = ["import_agent", "main"]

_TRIES = 3
_MODULES = (
    "encodings.idna",
    "llutil.agent.control.job_control",
    "llutil.agent.control.job_observer",
    "llutil.agent.control.status_report",
    "llutil.agent.ledger_agent",
    "llutil.agent.start_methods.forkserver_client",
    "llutil.agent.torch_agent",
    "llutil.agent.watchdog",
    "llutil.agent_process.main",
    "llutil.launcher.cpu_binding",
    "llutil.launcher.run",
    "llutil.rendezvous.build_handler",
    "llutil.rendezvous.handlers.ledger_handler",
    "llutil.rendezvous.handlers.single_node_handler",
)
"""What an agent imports beside torch. No store's client: gRPC starts threads."""


def import_agent() -> None:
    """Import what agents import.

    :raises ImportError: something is missing.
    """
    from llutil.agent.start_methods.forkserver_main import import_ahead
    from llutil.agent_process.prefork import import_environment

    with import_environment(1, os.environ):
        import_ahead()
        for name in _MODULES:
            importlib.import_module(name)
    if "torch" not in sys.modules:
        raise ImportError(f"{sys.executable} cannot import torch")


def main(
    argv: Sequence[str],
    import_ahead: Callable[[], None] = import_agent,
    run: Callable[[], int] | None = None,
) -> None:
    """Be the server, and return at its end; at once, if there is one already.

    ``import_ahead`` imports what agents need. ``run`` is what an agent does; it returns the exit
    status.
    """
    given = _arguments(argv)
    move_environment()
    environment = dict(os.environ)
    locked = _lock(given.socket)
    if locked is None:
        return
    try:
        take_problem(given.socket)  # of an earlier server
        import_ahead()
        if (threads := len(os.listdir("/proc/self/task"))) > 1:  # noqa: PTH208 - their number
            raise RuntimeError(f"its imports have started threads: it has {threads}")
        gc.collect()
        gc.freeze()  # or each agent's first collection would copy all that they share
        AgentServer(
            listener_at(given.socket),
            locked,
            environment=environment,
            idle=given.idle,
            watched=given.watch,
            run=run or _run_agent,
        ).serve()
    except BaseException:
        with contextlib.suppress(OSError):
            write_problem(given.socket, traceback.format_exc())
        with contextlib.suppress(OSError):  # also where there was no room for the problem
            locked.remove()
        raise


def _run_agent() -> int:
    from llutil.agent_process.main import main as serve

    return serve(sys.argv[1:])


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m llutil.agent_server",
        description="Forks the agents of Airflow tasks. A task starts it, where [elastic_launch] "
        "keep_agents_ready says so; SIGTERM ends it.",
    )
    parser.add_argument("socket", type=Path, help="where it listens")
    parser.add_argument("--idle", type=float, required=True, help="seconds without an agent")
    parser.add_argument(
        "--watch",
        type=_process,
        nargs="*",
        default=[],
        help="PID:START of processes that it ends with; START is in ticks since boot",
    )
    return parser.parse_args(argv)


def _process(text: str) -> tuple[int, int]:
    pid, _, start = text.partition(":")
    return int(pid), int(start)


def _lock(place: Path) -> PlaceLock | None:
    for left in reversed(range(_TRIES)):
        try:
            make_private(place.parent)
            return PlaceLock.take(place)
        except FileNotFoundError:  # another process has just removed the empty folder
            if not left:
                raise
    return None
