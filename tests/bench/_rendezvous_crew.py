"""``Crew``: the processes of one kind in the rendezvous benchmark, and how they are told what to do
and heard.
"""

from __future__ import annotations

import json
import secrets
import select
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.torch_forks import Forked, TorchForks

__all__ = ["Crew", "last"]

_PATIENCE = 180.0  # seconds
_NODES = "tests.bench._rendezvous_nodes"


class Crew:
    """Processes of one kind, and the control socket that they are told by."""

    def __init__(self, torch_forks: TorchForks, folder: Path, kind: str, **always: Any) -> None:
        self._torch_forks = torch_forks
        self._folder = folder
        self.kind = kind
        """The function of ``_rendezvous_nodes`` that they run."""
        self._always = always
        name = secrets.token_hex(4)
        self._output = folder / f"{name}.out"
        self._path = str(folder / f"{name}.control")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._path)
        self._listener.listen(256)
        self._listener.settimeout(_PATIENCE)
        self._links: dict[str, socket.socket] = {}
        self.processes: dict[str, Forked] = {}
        self.ready: dict[str, dict[str, Any]] = {}
        """What each node said when it was."""

    def add(
        self, nodes: Mapping[str, Mapping[str, Any]], env: Mapping[str, str], **conf: Any
    ) -> None:
        """Have these nodes ready to begin, each with ``conf`` and its own arguments."""
        call = f"{_NODES}:{self.kind}"
        for name, own in nodes.items():
            args = {"control": self._path, "name": name, **self._always, **conf, **own}
            self.processes[name] = self._torch_forks.fork(call, args, self._output, env)
        for _ in nodes:
            link, _ = self._listener.accept()
            word = _read(link)
            assert word["what"] == "ready"
            self._links[word["node"]] = link
            self.ready[word["node"]] = word

    def tell(self, word: str, *names: str) -> float:
        """Tell these nodes, or all; when that was."""
        began = time.monotonic()
        for name in names or tuple(self._links):
            self._links[name].send(word.encode())
        return began

    def hear(self, what: str, *names: str) -> list[dict[str, Any]]:
        """Wait until each of these nodes, or all, said that; what they said."""
        waiting = {name: self._links[name] for name in names or tuple(self._links)}
        heard = []
        deadline = time.monotonic() + _PATIENCE
        while waiting:
            readable, _, _ = select.select(
                list(waiting.values()), [], [], max(0.0, deadline - time.monotonic())
            )
            if not readable:
                raise TimeoutError(f"{self.kind}: no {what!r} from {', '.join(waiting)}")
            for link in readable:
                word = _read(link)
                if word["what"] == what:
                    heard.append(word)
                    del waiting[word["node"]]
                elif word["what"] == "finish":
                    raise RuntimeError(f"{self.kind}: {word['node']}: {word['why']}")
        return heard

    def kill(self, name: str) -> float:
        """SIGKILL to one; when that was."""
        began = time.monotonic()
        self.processes[name].signal(signal.SIGKILL)
        self._links.pop(name).close()
        return began

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        for process in self.processes.values():
            process.ended(30.0)
            process.close()
        self._listener.close()
        Path(self._path).unlink()


def _read(link: socket.socket) -> dict[str, Any]:
    data = link.recv(4096)
    if not data:
        raise RuntimeError("a node has ended; see its output")
    word: dict[str, Any] = json.loads(data)
    return word


def last(words: list[dict[str, Any]]) -> float:
    """When the last of these was said."""
    return max(float(word["at"]) for word in words)
