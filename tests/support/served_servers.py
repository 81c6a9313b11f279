"""Servers of a served ledger for tests, each in a process of its own, without a job around it.

A node of a job serves its ledger in its agent. Here a process serves that does nothing else, so
that a test can kill and freeze it without harm to a node. A server that is started again is a new
and empty ledger at the same address.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llutil.backends.endpoints import Endpoint

__all__ = ["ServedServer", "served"]

_ROOT = Path(__file__).parents[2]
_END = 30.0  # seconds for its process to end


class ServedServer:
    """One server. Its clients have to know ``secret``."""

    def __init__(self, *, host: str = "127.0.0.1", secret: str = "") -> None:
        self.host = host
        self.port = 0
        self._secret = secret
        handle, name = tempfile.mkstemp(prefix="llutil-served-")
        os.close(handle)
        self._history = Path(name)
        self._process: subprocess.Popen[str] | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where clients find it."""
        return Endpoint(self.host, self.port)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> ServedServer:
        """Start it, the second time at the same port, and wait until it serves."""
        arguments = [self.host, str(self.port), self._secret, str(self._history)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.served_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        self.port = int(self._read_line())
        return self

    def _read_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line
        raise RuntimeError(f"the server of a ledger ended with {self._process.wait()}")

    def ask(self, question: str) -> Any:
        """What it knows: ``served_process`` says which questions there are."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return json.loads(self._read_line())

    def changes(self) -> Iterator[tuple[str, bytes | None, int, int]]:
        """All changes since it was started last: key, value (None: deleted), revision, lease."""
        for line in self._history.read_text().splitlines():
            key, value, revision, lease = json.loads(line)
            yield key, None if value is None else base64.b64decode(value), revision, lease

    def left(self) -> list[tuple[str, bytes, float]]:
        """What is there now: keys, values, and the seconds that they have."""
        return [(key, base64.b64decode(value), ttl) for key, value, ttl in self.ask("left")]

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. ``start`` starts an empty one in its place."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate(timeout=_END)

    def freeze(self) -> None:
        """Stop it in its tracks; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        # Sent is not stopped: a thread that runs may answer one more request.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on after ``freeze``."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen for a while."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def stop(self) -> None:
        """End it, and remove its file."""
        self.kill()
        self._history.unlink()


@contextmanager
def served(*, host: str = "127.0.0.1", secret: str = "") -> Iterator[ServedServer]:
    """One server."""
    server = ServedServer(host=host, secret=secret)
    try:
        yield server.start()
    finally:
        server.stop()
