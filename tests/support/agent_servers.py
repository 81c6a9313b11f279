"""An agent server without torch, and what a task does with it: see ``light_agent_server``."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llutil.agent_server.client import AgentServerPlace, ForkedAgent
from llutil.agent_server.order import Order
from llutil.agent_server.same_start import server_environment
from llutil.agent_server.shown_memory import room
from llutil.system.process_table import stat_of

__all__ = ["SECONDS", "Server", "ended", "start_of", "wait_for"]

SECONDS = 60.0
"""How long a test waits at most for what takes a moment."""

_PROGRAM = str(Path(__file__).with_name("light_agent_server.py"))


def ended(pidfd: int) -> bool:
    """Wait for the end of a process."""
    return bool(select.select([pidfd], [], [], SECONDS)[0])


class Server:
    """An agent server without torch, below this process, and its tasks' side."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.env = {**os.environ, **env}
        self.place = AgentServerPlace(sys.executable, self.env, folder)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, idle: float = 600.0, *, watch: str = "") -> None:
        """Start it, and wait until it listens."""
        self.process = self.begin(idle, watch=watch)
        read = select.poll()
        with os.fdopen(os.pidfd_open(self.process.pid)) as pidfd:
            read.register(pidfd, select.POLLIN)
            while not self.place.path.exists():
                assert not read.poll(5), self.place.problem()

    def begin(self, idle: float = 600.0, *, watch: str = "") -> subprocess.Popen[bytes]:
        """Start it, as a child of this process: it would be an orphan otherwise."""
        return subprocess.Popen(
            [
                *(sys.executable, "-u", _PROGRAM, str(self.place.path), "--idle", str(idle)),
                *(("--watch", watch) if watch else ()),
            ],
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=server_environment(self.env) | room(),
            start_new_session=True,
        )

    def fork(self, code: str, *arguments: str, **options: Any) -> ForkedAgent:
        """An agent that executes ``code``."""
        env = {**self.env, **options.pop("env", {}), "RUN": code}
        fds = options.pop("fds", {})
        with Path(os.devnull).open("wb") as null:
            streams = {1: null.fileno(), 2: 2, **fds}
            order = Order(
                arguments=arguments,
                env=env,
                sys_path=options.pop("sys_path", ()),
                places=tuple(streams),
            )
            return self.place.fork(order, options.pop("cwd", None), tuple(streams.values()))

    def files(self) -> list[str]:
        """What lies in its folder."""
        folder = self.place.path.parent
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def ends(self) -> int:
        """Its exit status, once it has ended."""
        assert self.process is not None
        return self.process.wait(SECONDS)


def wait_for(agent: ForkedAgent) -> int:
    """The exit status of an agent, once it has ended."""
    assert ended(agent.pidfd)
    status = agent.poll()
    assert status is not None
    agent.close()
    return status


def start_of(pid: int) -> int:
    """When a process started, in ticks."""
    stat = stat_of(pid)
    assert stat is not None
    return stat.start
