"""One started worker, and the test's ends of its pipes."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from llutil.agent.start_methods.forkserver_client import ForkServer
from llutil.agent.start_methods.starter import Starter, StartRequest, WorkerProcess
from llutil.agent.worker_side.outcome_pipe import ErrorNote, OutcomeReader, Returned
from llutil.agent.worker_side.work_order import WorkOrder, write_order
from llutil.entrypoint import Entrypoint

__all__ = [
    "START_FUNCTIONS",
    "TORCH_WORLD",
    "WORLD",
    "Started",
    "read_all",
    "server_pid",
    "started",
]

_ROOT = str(Path(__file__).parents[4])
_NO_TORCH = str(Path(_ROOT, "tests/support/stub_modules/no_torch"))
TORCH_WORLD = {"PATH": os.environ["PATH"], "PYTHONPATH": _ROOT}
"""The environment of workers, and of their fork server."""
WORLD = {**TORCH_WORLD, "PYTHONPATH": os.pathsep.join([_NO_TORCH, _ROOT])}
"""The same where they find no torch, whose import takes seconds."""
START_FUNCTIONS = "tests.support.start_functions"
_DEADLINE = 30.0


@dataclass
class Started:
    process: WorkerProcess
    outcome: int
    stdout: int
    stderr: int

    def status(self) -> int:
        assert select.select([self.process.exit_fd], [], [], _DEADLINE)[0], "it did not end"
        status = self.process.poll()
        assert status is not None
        return status

    def note(self) -> Returned | ErrorNote | None:
        collector = OutcomeReader()
        while select.select([self.outcome], [], [], _DEADLINE)[0]:
            data = os.read(self.outcome, 1 << 16)
            if not data:
                break
            collector.feed(data)
        return collector.note()

    def value(self) -> Any:
        note = self.note()
        assert isinstance(note, Returned), note
        return cloudpickle.loads(note.content)


@contextmanager
def started(
    starter: Starter, entrypoint: Entrypoint | None, *, env: dict[str, str] = WORLD
) -> Iterator[Started]:
    """A worker of ``starter``'s, with ``env``; ``entrypoint`` None means an order that cannot be
    read.
    """
    with ExitStack() as stack:
        if entrypoint is None:
            order = os.memfd_create("nonsense")
            os.write(order, b"nonsense")
        else:
            order = write_order(
                WorkOrder(entrypoint=entrypoint, sys_path=tuple(sys.path), result_limit=None)
            )
        theirs = [order]
        ours = []
        for _ in range(3):
            read, write = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, read)
            ours.append(read)
            theirs.append(write)
        try:
            process = starter.start(
                StartRequest(
                    order_fd=order,
                    outcome_fd=theirs[1],
                    stdout=theirs[2],
                    stderr=theirs[3],
                    env=env,
                )
            )
        finally:
            for fd in theirs:
                os.close(fd)
        stack.callback(process.close)
        stack.callback(_end, process)
        yield Started(process, *ours)


def _end(process: WorkerProcess) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        assert select.select([process.exit_fd], [], [], _DEADLINE)[0]
        process.poll()


def read_all(fd: int) -> str:
    text = b""
    while select.select([fd], [], [], _DEADLINE)[0] and (data := os.read(fd, 1 << 16)):
        text += data
    return text.decode()


def server_pid(server: ForkServer) -> int:
    (pid,) = server.processes
    return pid
