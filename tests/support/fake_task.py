"""A stand-in for the Airflow task: starts a real agent process as the operator's hook does, and
talks to it.

It imports neither Airflow nor the provider, so that the agent is tested by its protocol alone.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from llutil.entrypoint import Entrypoint, FunctionName
from llutil.launcher.config import LaunchConfig
from llutil.serialization import functions
from llutil.system.job_mark import MARK_VARIABLE
from llutil.task_link import messages as wire
from llutil.task_link.decoder import Decoder
from llutil.task_link.secrets_file import open_secrets, without_secrets

__all__ = ["ROOT", "FakeTask", "spec", "worker_function"]

ROOT = str(Path(__file__).parents[2])
DEADLINE = 60.0  # seconds


def worker_function(
    name: str, *args: Any, module: str = "tests.support.worker_functions"
) -> Entrypoint:
    """A function of that module, with its arguments."""
    return FunctionName(f"{module}:{name}", functions.pickle_arguments(args))


def spec(
    entrypoint: Entrypoint, folder: str, nproc: int = 1, *, grace: float = 5, **config: Any
) -> wire.Spec:
    """A job of one node."""
    fields: dict[str, Any] = {
        "min_nodes": 1,
        "max_nodes": 1,
        "run_id": "job",
        "shutdown_timeout": grace,
        "nproc_per_node": nproc,
        "max_restarts": 0,
        "start_method": "fork",
        "monitor_interval": 1000,
    }
    return wire.Spec(
        config=LaunchConfig(**fields | config),
        entrypoint=entrypoint,
        result_limit=1_000_000,
        orphan_log=str(Path(folder, "after.log")),
    )


class FakeTask:
    """One agent process and this side of its socket and pipes.

    ``heard`` is every message so far; ``printed`` what came through the agent's own standard
    streams. ``popen`` starts the agent, as ``subprocess.Popen`` does, which is the default.
    """

    popen: Callable[..., Any] = subprocess.Popen

    def __init__(
        self,
        *messages: wire.Message,
        env: dict[str, str] | None = None,
        popen: Callable[..., Any] | None = None,
    ) -> None:
        self.heard: list[wire.Message] = []
        self.printed = {"stdout": b"", "stderr": b""}
        self.closed = False
        ours, theirs = socket.socketpair()
        readers, writers = zip(*(os.pipe() for _ in range(2)), strict=True)
        options = {
            "--socket": theirs.fileno(),
            "--stdout-reader": readers[0],
            "--stderr-reader": readers[1],
        }
        hidden = None
        plain = list[wire.Message]()
        for message in messages:
            if not isinstance(message, wire.Spec):
                plain.append(message)
                continue
            shown, secrets = without_secrets(message)
            plain.append(shown)
            if secrets:
                hidden = options["--secrets"] = open_secrets(secrets)
        arguments = [str(word) for pair in options.items() for word in pair]
        self.process = (popen or self.popen)(
            [sys.executable, "-u", "-m", "llutil", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=writers[0],
            stderr=writers[1],
            pass_fds=tuple(options.values()),
            env={**os.environ, "PYTHONPATH": ROOT, MARK_VARIABLE: uuid.uuid4().hex, **(env or {})},
            start_new_session=True,
        )
        theirs.close()
        for fd in (*writers, *(() if hidden is None else (hidden,))):
            os.close(fd)
        self.socket = ours
        self.pipes = dict(zip(readers, ("stdout", "stderr"), strict=True))
        self._decoder = Decoder()
        self._selector = selectors.DefaultSelector()
        for fd in (ours, *readers):
            self._selector.register(fd, selectors.EVENT_READ)
        self.tell(*plain)

    def tell(self, *messages: wire.Message) -> None:
        """Say something to the agent."""
        for message in messages:
            self.socket.sendall(wire.encode(message))

    def step(self, seconds: float = 0.1, size: int = 1 << 16) -> None:
        """Take what has come, for at most so many seconds and about so many bytes."""
        for key, _ in self._selector.select(seconds):
            if key.fd in self.pipes:
                data = os.read(key.fd, size)
                self.printed[self.pipes[key.fd]] += data
            else:
                data = self._receive(size)
                self.heard += self._decoder.feed(data)
                self.closed = not data
            if not data:
                self._selector.unregister(key.fileobj)

    def _receive(self, size: int) -> bytes:
        with suppress(ConnectionError):
            return self.socket.recv(size)
        return b""

    def until(self, kind: type[wire.Message] | Sequence[type[wire.Message]], count: int = 1) -> Any:
        """Listen until so many messages of ``kind`` have come; the last of them."""
        kinds = tuple(kind) if isinstance(kind, Sequence) else (kind,)
        deadline = time.monotonic() + DEADLINE
        while sum(isinstance(message, kinds) for message in self.heard) < count:
            assert time.monotonic() < deadline, f"no {kind} within {DEADLINE} s; {self.story()}"
            assert not self.closed, f"the agent hung up before any {kind}; {self.story()}"
            self.step()
        return [message for message in self.heard if isinstance(message, kinds)][count - 1]

    def verdict(self) -> Any:
        """Listen to the end; the last message. The process has ended then, with status 0."""
        last = self.until((wire.JobSucceeded, wire.JobFailed))
        deadline = time.monotonic() + DEADLINE
        while not self.closed or self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end; {self.story()}"
            self.step()
        assert self.heard[-1] is last, "it said something after its last word"
        assert self.process.returncode == 0
        return last

    def results(self) -> dict[int, Any]:
        """What the ranks returned, as far as it was heard."""
        return {m.rank: m.value for m in self.heard if isinstance(m, wire.Result)}

    def lines(self) -> Iterator[wire.OutputLines]:
        """What ranks printed, as far as it was heard: one of each line."""
        return (
            wire.OutputLines(message.rank, message.stream, text, message.prefix)
            for message in self.heard
            if isinstance(message, wire.OutputLines)
            for text in message.text.split("\n")
        )

    def story(self) -> str:
        """What is known, for the text of a failed test."""
        return f"heard {[str(m)[:300] for m in self.heard[-20:]]}, printed {self.printed}"

    def hang_up(self) -> None:
        """Close everything, as the kernel does when a task is killed."""
        self._selector.close()
        self.socket.close()
        for fd in self.pipes:
            os.close(fd)
        self.pipes = {}

    def __enter__(self) -> FakeTask:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hang_up()
        try:
            self.process.wait(DEADLINE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
