from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_servers import Server


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for a folder of sockets; a socket's path may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="s-") as place:
        yield Path(place, "sockets")


@pytest.fixture
def idle_server(folder: Path) -> Iterator[Server]:
    """One that has not been started."""
    server = Server(folder, {})
    yield server
    if server.process is not None and server.process.poll() is None:
        server.signal(signal.SIGCONT)
        server.signal(signal.SIGKILL)
        server.ends()


@pytest.fixture
def server(idle_server: Server) -> Server:
    """One that serves."""
    idle_server.start()
    return idle_server
