"""The rendezvous against stock torch's c10d, with real processes on this machine, in one run.

Three things are timed: from the word "go" until all N nodes are in their first round; from the
arrival of one more node until all N+1 are in the next; from an agent's SIGKILL until its peers are
in a round without it. "In a round" means to know all that workers have to be told. Both sides have
imported everything before the clock runs, and nothing more: torch's handler goes through all loaded
modules whenever it records an event (inspect.stack, torch 2.13), so it would be several times
slower in a process that has imported all that torchrun does. The figures depend on the machine, and
only the ratios mean anything.

``python -m tests.bench.rendezvous 2 8 32 64 128`` chooses the numbers of nodes.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.stores import ETCD, ZOOKEEPER, Server, Store
from tests.support.torch_forks import Forked, TorchForks

__all__ = ["main"]

_SIZES = (2, 8, 32, 64)
_RUNS = 3
_STORES = (ETCD, ZOOKEEPER)
_PATIENCE = 180.0  # seconds
_NODES = "tests.bench._rendezvous_nodes"


class _Crew:
    """Processes of one kind, and the control socket that they are told by."""

    def __init__(
        self, torch_forks: TorchForks, folder: Path, kind: str, endpoint: str, **always: Any
    ) -> None:
        self._torch_forks = torch_forks
        self._folder = folder
        self.kind = kind
        self._endpoint = endpoint
        self._always = always
        self._run_id = secrets.token_hex(4)
        self._path = str(folder / f"{self._run_id}.control")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._path)
        self._listener.listen(256)
        self._listener.settimeout(_PATIENCE)
        self._links: dict[str, socket.socket] = {}
        self.processes: dict[str, Forked] = {}
        self.ready: dict[str, dict[str, Any]] = {}
        """What each node said when it was."""

    def add(self, names: list[str], low: int, high: int, env: dict[str, str], **conf: Any) -> None:
        """Have these nodes ready to begin."""
        call = f"{_NODES}:{self.kind}"
        for name in names:
            args = {"control": self._path, "name": name}
            if self.kind != "stock_store":
                args |= {
                    "endpoint": self._endpoint,
                    "run_id": self._run_id,
                    "low": low,
                    "high": high,
                    **self._always,
                    **conf,
                }
            output = self._folder / f"{self._run_id}.out"
            self.processes[name] = self._torch_forks.fork(call, args, output, env)
        for _ in names:
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


class _Bench:
    """What makes crews of all kinds."""

    def __init__(self, torch_forks: TorchForks, folder: Path, servers: dict[Store, Server]) -> None:
        self._torch_forks = torch_forks
        self._folder = folder
        self._servers = servers

    @contextmanager
    def ours(self, store: Store) -> Iterator[_Crew]:
        endpoint = str(self._servers[store].endpoint)
        crew = _Crew(self._torch_forks, self._folder, "ours", endpoint, backend=store.backend)
        try:
            yield crew
        finally:
            crew.close()

    @contextmanager
    def stock(self) -> Iterator[_Crew]:
        with ExitStack() as stack:
            host = _Crew(self._torch_forks, self._folder, "stock_store", "")
            stack.callback(host.close)
            host.add(["store"], 0, 0, {})
            endpoint = f"127.0.0.1:{host.ready['store']['port']}"
            crew = _Crew(self._torch_forks, self._folder, "stock", endpoint)
            stack.callback(crew.close)
            yield crew


def _names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


def _last(words: list[dict[str, Any]]) -> float:
    return max(float(word["at"]) for word in words)


def _brief(crew: _Crew) -> dict[str, float]:
    """A last call of one second, as each kind wants to be told; stock's first round of an elastic
    job needs it too.
    """
    return (
        {"last_call": 1} if crew.kind == "ours" else {"last_call_timeout": 1, "join_timeout": 170}
    )


def _first_round(crew: _Crew, count: int) -> float:
    crew.add(_names(count), count, count, {})
    began = crew.tell("begin")
    words = crew.hear("round")
    assert {word["size"] for word in words} == {count}
    return _last(words) - began


def _scale_out(crew: _Crew, count: int, env: dict[str, str]) -> float:
    crew.add(_names(count), count, count + 1, env, **_brief(crew))
    crew.tell("begin")
    crew.hear("round")
    crew.tell("watch")
    crew.add(["late"], count, count + 1, env, **_brief(crew))
    began = crew.tell("begin", "late")
    words = crew.hear("round")
    assert {word["size"] for word in words} == {count + 1}
    return _last(words) - began


def _loss_of_ours(
    crew: _Crew, lease: int, count: int, *, guarded: bool = False
) -> tuple[float, float]:
    """Seconds to detect it, and from then on to the next round."""
    crew.add(_names(count), count - 1, count, {}, lease_ttl=lease, guarded=guarded)
    crew.tell("begin")
    crew.hear("round")
    killed = crew.kill("n1")
    detected = _last(crew.hear("over"))
    words = crew.hear("round")
    assert {word["size"] for word in words} == {count - 1}
    return detected - killed, _last(words) - detected


def _loss_of_stock(crew: _Crew, count: int) -> float:
    """Seconds to the next round, with torch's default times; the peers know at once that their
    workers failed.
    """
    crew.add(_names(count), count - 1, count, {})
    crew.tell("begin")
    crew.hear("round")
    killed = crew.kill("n1")
    crew.tell("again")
    words = crew.hear("round")
    assert {word["size"] for word in words} == {count - 1}
    return _last(words) - killed


def _median(measure: Callable[[], float], runs: int) -> tuple[float, str]:
    times = [measure() for _ in range(runs)]
    middle = statistics.median(times)
    return middle, f"{middle:8.3f} ({min(times):.3f}-{max(times):.3f})"


def _row(name: str, bench: _Bench, runs: int, measure: Callable[[_Crew], float]) -> None:
    def once(kind: Callable[[], Any]) -> float:
        with kind() as crew:
            return measure(crew)

    stock, text = _median(lambda: once(bench.stock), runs)
    print(f"  {name:<28}{text:>26}", end="", flush=True)
    for store in _STORES:
        ours, text = _median(lambda: once(partial(bench.ours, store)), runs)  # noqa: B023 - called at once
        print(f"{text:>26}{stock / ours:>7.1f}x", end="", flush=True)
    print(flush=True)


def main(sizes: tuple[int, ...] = _SIZES) -> None:
    """Print the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rdzv-")))
        torch_forks = TorchForks("torch.distributed.elastic.rendezvous.registry")
        stack.callback(torch_forks.close)
        servers = {store: stack.enter_context(store.start()) for store in _STORES}
        bench = _Bench(torch_forks, folder, servers)
        print(f"rendezvous, seconds, median of {_RUNS} (fastest-slowest); {os.cpu_count()} cores")
        ours = "".join(f"{store.name:>26}{'ratio':>8}" for store in _STORES)
        print(f"  {'':<28}{'torch c10d':>26}{ours}")
        for count in sizes:
            runs = _RUNS if count <= 64 else 1
            _row(f"first round, {count} nodes", bench, runs, partial(_first_round, count=count))
        # Without this, torch 2.13 gives late nodes the address of a store that they never find.
        env = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        for count in [size for size in sizes if size <= 64]:
            name = f"one more than {count} nodes"
            _row(name, bench, 1, partial(_scale_out, count=count, env=env))
        _losses(bench)


def _losses(bench: _Bench, count: int = 3) -> None:
    with bench.stock() as crew:
        stock = _loss_of_stock(crew, count)
    print(f"  {f'1 of {count} killed':<28}{stock:>15.3f}")
    rows = {
        "  lease 3 s (expiry+round)": (3, False),
        "  lease 10 s (expiry+round)": (10, False),
        "  the same, with its guardian": (10, True),
    }
    for name, (lease, guarded) in rows.items():
        print(f"  {name:<28}{'':>26}", end="", flush=True)
        for store in _STORES:
            with bench.ours(store) as crew:
                detect, again = _loss_of_ours(crew, lease, count, guarded=guarded)
            text = f"{detect + again:8.3f} ({detect:.3f}+{again:.3f})"
            print(f"{text:>26}{stock / (detect + again):>7.1f}x", end="", flush=True)
        print(flush=True)


if __name__ == "__main__":
    main(tuple(int(word) for word in sys.argv[1:]) or _SIZES)
