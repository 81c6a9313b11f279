"""Workers that are forked from an agent that serves a ledger."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from llutil.launcher import worker
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.support.ports import free_ports

pytestmark = [pytest.mark.launch, pytest.mark.fault]


def _listening_sockets(port: int) -> int:
    if worker.restart_count() == 0:
        os.kill(os.getppid(), signal.SIGKILL)  # the next one is forked while the ledger is served
        signal.pause()
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(fd.name))) as one:
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            found += bool(listens and one.getsockname()[1] == port)
    return found


def test_no_worker_holds_the_port_of_the_ledger() -> None:
    (port,) = free_ports(1)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=1,
        run_id="job",
        rdzv_backend="served",
        rdzv_endpoint=f"127.0.0.1:{port}",
        start_method="fork",
        max_restarts=1,
    )
    assert launch_agent(config, _listening_sockets, [port]) == {0: 0}
