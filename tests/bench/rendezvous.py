"""The rendezvous against stock torch's c10d, with real processes on this machine, in one run: on a
served ledger, on etcd and on ZooKeeper.

Three things are timed, for each number of nodes. The first round: from the word "go" until all are
in it. One more: from the arrival of one more node until all are in the next round with it. A killed
agent: from its SIGKILL until all others are told that their workers have to stop; its guardian ends
its lease. "In a round" means to know all that workers have to be told. A served ledger is served by
the first node, in a thread of its process; torch's store has a process of its own.

Torch's c10d tells the others of a killed agent only by the failure of their workers. So its figure
is another one: they ask for the next round at once, and get it when the store has missed three
heartbeats of 5 s, torch's default. Where a last call matters it takes 1 s, on all sides.

All have imported everything before the clock runs, and nothing more: torch's handler goes through
all loaded modules whenever it records an event (inspect.stack, torch 2.13), so it would be several
times slower in a process that has imported all that torchrun does.

``python -m tests.bench.rendezvous 2 8`` chooses the numbers of nodes.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench._rendezvous_crew import Crew, last
from tests.bench.report.measurement import Goal, Measurement, Sample
from tests.bench.report.words import progress
from tests.support.ports import free_ports
from tests.support.stores import ETCD, ZOOKEEPER
from tests.support.torch_forks import TorchForks

__all__ = ["measure"]

_SIZES = (2, 8, 32, 64, 128)
_RUNS = 3
_REST = 0.6  # seconds, after which a guardian has imported all that it needs
_LEASES = (3, 10)  # seconds; the second is the default
_ASKED_AT_ONCE = "until the next round, if all ask for it at once"
_STOCK, _SERVED = "torch's c10d", "served"
# Without this, torch 2.13 gives late nodes the address of a store that they never find.
_FINDS_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

_GOALS = {2: 20, 8: 20, 32: 10, 64: 10, 128: 8}
"""How many times faster than c10d the first round on a served ledger is to be."""
_NOTICED = 0.2  # seconds, as a goal
_REQUESTS = 4
"""The requests that a node may cost the server of a served ledger in a round, as a goal."""


class _Bench:
    """Makes crews of each kind."""

    def __init__(self, stack: ExitStack) -> None:
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rdzv-")))
        self._torch_forks = TorchForks("torch.distributed.elastic.rendezvous.registry")
        stack.callback(self._torch_forks.close)
        self.kinds: dict[str, Callable[[], AbstractContextManager[Crew]]] = {
            _STOCK: self._stock,
            _SERVED: self._served,
        }
        for store, name in ((ETCD, "etcd"), (ZOOKEEPER, "ZooKeeper")):
            endpoint = str(stack.enter_context(store.start()).endpoint)
            self.kinds[name] = partial(self._ours, endpoint, store.backend)

    @contextmanager
    def _crew(self, kind: str, **always: Any) -> Iterator[Crew]:
        crew = Crew(self._torch_forks, self._folder, kind, **always)
        try:
            yield crew
        finally:
            crew.close()

    def _ours(self, endpoint: str, backend: str) -> AbstractContextManager[Crew]:
        run_id = secrets.token_hex(4)
        return self._crew("ours", endpoint=endpoint, run_id=run_id, backend=backend)

    def _served(self) -> AbstractContextManager[Crew]:
        (port,) = free_ports(1)
        return self._ours(f"127.0.0.1:{port}", "served")

    @contextmanager
    def _stock(self) -> Iterator[Crew]:
        with self._crew("stock_store") as host:
            host.add({"store": {}}, {})
            endpoint = f"127.0.0.1:{host.ready['store']['port']}"
            with self._crew("stock", endpoint=endpoint, run_id=secrets.token_hex(4)) as crew:
                yield crew

    def times(self, kind: str, measure: Callable[[Crew], float], runs: int) -> list[float]:
        """Measure so often."""
        times = []
        for _ in range(runs):
            with self.kinds[kind]() as crew:
                times.append(measure(crew))
        return times


def _nodes(count: int, guarded: str = "") -> dict[str, dict[str, bool]]:
    """The names of so many nodes, and what is special about some."""
    nodes: dict[str, dict[str, bool]] = {f"n{number}": {} for number in range(count)}
    if guarded:
        nodes[guarded] = {"guarded": True}
    return nodes


def _brief(crew: Crew) -> dict[str, float]:
    """A last call of one second, as each kind wants to be told; stock's first round of an elastic
    job needs it too.
    """
    if crew.kind == "stock":
        return {"last_call_timeout": 1, "join_timeout": 170}
    return {"last_call": 1}


def _first_round(crew: Crew, count: int) -> float:
    crew.add(_nodes(count), {}, low=count, high=count)
    began = crew.tell("begin")
    words = crew.hear("round")
    assert {word["size"] for word in words} == {count}
    return last(words) - began


def _one_more(crew: Crew, count: int) -> float:
    conf = {"low": count, "high": count + 1, **_brief(crew)}
    crew.add(_nodes(count), _FINDS_STORE, **conf)
    crew.tell("begin")
    crew.hear("round")
    crew.tell("watch")
    crew.add({"late": {}}, _FINDS_STORE, **conf)
    began = crew.tell("begin", "late")
    words = crew.hear("round")
    assert {word["size"] for word in words} == {count + 1}
    return last(words) - began


def _kill(crew: Crew, count: int, guarded: str = "", **conf: float) -> float:
    """Have so many nodes in a round, and kill one; when that was. Those of stock know at once."""
    crew.add(_nodes(count, guarded), {}, low=count - 1, high=count, **conf)
    crew.tell("begin")
    crew.hear("round")
    if guarded:
        time.sleep(_REST)
    killed = crew.kill("n1")
    if crew.kind == "stock":
        crew.tell("again")
    return killed


def _in_next_round(crew: Crew, count: int) -> float:
    """When the others were."""
    words = crew.hear("round")
    assert {word["size"] for word in words} == {count - 1}
    return last(words)


def _noticed(crew: Crew, count: int) -> float:
    if crew.kind == "stock":
        killed = _kill(crew, count, **_brief(crew))
        return _in_next_round(crew, count) - killed
    killed = _kill(crew, count, guarded="n1")
    return last(crew.hear("over")) - killed


def _lost_hosts(bench: _Bench, count: int = 3) -> Iterator[Measurement]:
    """How long a round without a host that is gone takes: nobody ends its lease, so that has to be
    over. It has just begun. All wait at the same time.
    """
    cases: list[tuple[str, int, dict[str, float]]] = [
        (kind, lease, {"lease_ttl": lease})
        for lease in _LEASES
        for kind in bench.kinds
        if kind != _STOCK
    ]
    cases.append((_STOCK, 0, {}))
    found = {}
    with ExitStack() as stack:
        crews = [stack.enter_context(bench.kinds[kind]()) for kind, _, _ in cases]
        killed = [
            _kill(crew, count, **conf) for crew, (_, _, conf) in zip(crews, cases, strict=True)
        ]
        for crew, began, (kind, lease, _) in zip(crews, killed, cases, strict=True):
            found[kind, lease] = Sample.of([_in_next_round(crew, count) - began])
    stock = found.pop((_STOCK, 0))
    for (kind, lease), ours in found.items():
        yield Measurement(
            name=f"lost-host-{kind}",
            case=str(lease),
            what=f"until the others are in the next round after the loss of 1 host of {count}, "
            f"{kind}, lease of {lease} s",
            unit="s",
            ours=ours,
            peer=stock,
            peer_name=f"{_STOCK}, its defaults",
        )


def _requests(bench: _Bench, count: int) -> int:
    """How often a node, if it does not lead, asks the server of a served ledger for something until
    it is in the first round; the most of any.
    """
    with bench.kinds[_SERVED]() as crew:
        _first_round(crew, count)
        crew.tell("count", "n0")
        (word,) = crew.hear("count", "n0")
    *nodes, _leader = sorted(word["requests"])
    assert len(nodes) == count - 1
    return int(nodes[-1]) - 1  # each asked for something before the clock ran


def _timed() -> Iterator[tuple[str, str, Callable[..., float]]]:
    """What is timed: its name, in words, and how."""
    yield "first", "until all nodes are in the first round", _first_round
    yield "one-more", "until one more node is let in", _one_more
    yield "killed", "until the others know of a killed agent", _noticed


def _runs(kind: str, name: str, count: int) -> int:
    """Several where that is quick, or a goal depends on it."""
    if kind == _STOCK:
        return _RUNS if name == "first" else 1
    return _RUNS if kind == _SERVED or count <= 32 else 1


def _goal(name: str, kind: str, count: int) -> Goal | None:
    if kind != _SERVED:
        return None
    if name == "killed":
        return Goal("ours", _NOTICED)
    return Goal("ratio", _GOALS[count]) if name == "first" and count in _GOALS else None


def measure(sizes: tuple[int, ...] = _SIZES) -> Iterator[Measurement]:
    """All of it, with so many nodes."""
    with ExitStack() as stack:
        bench = _Bench(stack)
        for name, what, timed in _timed():
            for count in sizes:
                times = {
                    kind: Sample.of(
                        bench.times(kind, partial(timed, count=count), _runs(kind, name, count))
                    )
                    for kind in bench.kinds
                }
                stock = times.pop(_STOCK)
                for kind, ours in times.items():
                    yield Measurement(
                        name=f"{name}-{kind}",
                        case=str(count),
                        what=f"{what}, {kind}, {count} nodes",
                        unit="s",
                        ours=ours,
                        peer=stock,
                        peer_name=_STOCK if name != "killed" else f"{_STOCK}, {_ASKED_AT_ONCE}",
                        goal=_goal(name, kind, count),
                    )
        for count in sizes:
            yield Measurement(
                name="requests",
                case=str(count),
                what=f"requests of a node to a served ledger until it is in a round, {count} nodes",
                unit="requests",
                ours=Sample.of([_requests(bench, count)]),
                goal=Goal("ours", _REQUESTS),
            )
        yield from _lost_hosts(bench)


if __name__ == "__main__":
    for one in measure(tuple(int(word) for word in sys.argv[1:]) or _SIZES):
        print(progress("rendezvous", one), flush=True)
