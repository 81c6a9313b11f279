"""Two nodes that run one job after the other: two processes for a whole table, on one etcd.

``NodePair`` is the test's side. ``serve`` is what a node's process does: it hears what to launch,
launches it, and says how that ended. All imports are done once, so that a job costs little more
than its workers do.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.leftovers import MARK
from tests.support.torch_forks import Forked, TorchForks

__all__ = ["End", "NodePair", "serve"]

_PATIENCE = 60.0  # seconds for a process to be there
_BIG = 1000  # characters: of a longer value, only the length is told


@dataclass(frozen=True, slots=True)
class End:
    """How ``launch_agent`` ended on one node: with "values", or with an error of that ``kind``.

    ``seconds`` is how long the call took. ``children`` are the processes that the node had
    afterwards: none, if all is well.
    """

    kind: str
    values: dict[int, Any]
    text: str
    seconds: float
    children: list[int]


class NodePair:
    """Two nodes, "a" and "b", whose ranks have this order. Close it."""

    def __init__(self, torch_forks: TorchForks, folder: Path, endpoint: str) -> None:
        self._endpoint = endpoint
        self._processes: list[Forked] = []
        self._links: list[socket.socket] = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(folder / "control"))
            listener.listen()
            listener.settimeout(_PATIENCE)
            env = {name: os.environ[name] for name in (MARK, "TMPDIR") if name in os.environ}
            for name in "ab":
                args = {"control": str(folder / "control")}
                output = folder / f"{name}.out"
                self._processes.append(torch_forks.fork(f"{__name__}:serve", args, output, env))
                self._links.append(listener.accept()[0])

    def launch(
        self,
        entrypoint: str,
        *args: Any,
        seconds: float,
        env: Mapping[str, str] | None = None,
        **config: Any,
    ) -> tuple[End, End]:
        """One job on both nodes; how it ended on "a" and on "b".

        :raises TimeoutError: it did not end within so many ``seconds``. The nodes are of no use
            afterwards.
        """
        self.begin(entrypoint, *args, env=env, **config)
        return self.ends(seconds)

    def begin(
        self, entrypoint: str, *args: Any, env: Mapping[str, str] | None = None, **config: Any
    ) -> None:
        """Start a job on both nodes."""
        fields = {
            "min_nodes": 2,
            "max_nodes": 2,
            "nproc_per_node": 1,
            "run_id": secrets.token_hex(4),
            "rdzv_endpoint": self._endpoint,
            "max_restarts": 0,
            "monitor_interval": 1000,
            "shutdown_timeout": 5,
            **config,
        }
        for index, link in enumerate(self._links):
            order = {
                "entrypoint": entrypoint,
                "args": args,
                "config": fields | {"node_index": index, "node_label": "ab"[index]},
                "env": dict(env or {}),
            }
            link.send(json.dumps(order).encode())

    def ends(self, seconds: float) -> tuple[End, End]:
        """Wait for the end of the job that has begun."""
        deadline = time.monotonic() + seconds
        found = []
        for link, process in zip(self._links, self._processes, strict=True):
            if not select.select([link], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"not within {seconds} s; it said:\n{self.said()}")
            data = link.recv(1 << 20)
            assert data, f"node process {process.pid} has ended; it said:\n{self.said()}"
            end = json.loads(data)
            end["values"] = {int(rank): value for rank, value in end["values"].items()}
            found.append(End(**end))
        first, second = found
        return first, second

    def said(self) -> str:
        """The last that both printed."""
        return "\n".join(one.output.read_text(errors="replace")[-4000:] for one in self._processes)

    @property
    def pids(self) -> tuple[int, int]:
        """The two agents' processes."""
        first, second = self._processes
        return first.pid, second.pid

    def close(self) -> None:
        """End both."""
        for link in self._links:
            link.close()
        for process in self._processes:
            process.ended(5.0)
            process.close()


def serve(control: str) -> None:
    """Be a node, until the test hangs up."""
    import grpc  # noqa: F401 - imported once, for all jobs

    from llutil.launcher.launch_agent import LaunchConfig, launch_agent

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(control)
        while data := link.recv(1 << 16):
            order = json.loads(data)
            os.environ.update(order["env"])
            began = time.monotonic()
            end: dict[str, Any] = {"kind": "values", "values": {}, "text": ""}
            try:
                values = launch_agent(
                    LaunchConfig(**order["config"]), order["entrypoint"], order["args"]
                )
                end["values"] = {rank: _told(value) for rank, value in values.items()}
            except BaseException as error:
                traceback.print_exc()
                end |= {"kind": type(error).__name__, "text": str(error)}
                if isinstance(error, KeyboardInterrupt):
                    raise
            end["seconds"] = time.monotonic() - began
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            end["children"] = [int(pid) for pid in children]
            sys.stdout.flush()
            link.send(json.dumps(end).encode())


def _told(value: Any) -> Any:
    if isinstance(value, bytes | str) and len(value) > _BIG:
        return len(value)
    return value
