"""A run of many nodes of which one after the other is killed at a random moment, and replaced."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.errors import RendezvousError
from llutil.ledgers import LedgerUnavailable
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.rendezvous.protocol.record_codec import decode
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Assignment
from tests.integration.rendezvous.jobs import TTL, until
from tests.support.leftovers import MARK
from tests.support.ports import free_ports
from tests.support.store_history import ServerPart, read_history
from tests.support.stores import SERVED_BY_A_NODE, STORES, Store
from tests.support.torch_forks import Forked, TorchForks

pytestmark = pytest.mark.fault

_NODES = 4
_KILLS = {"etcd": 20, "zookeeper": 20, "served": 60}
_IMPORTS = {
    "etcd": ["llutil.ledgers.etcd.ledger"],
    "zookeeper": ["llutil.ledgers.zookeeper.ledger"],
    "served": ["llutil.ledgers.served.ledger", "llutil.ledgers.served.serving_node"],
}
_RULES = {"min_nodes": 2, "max_nodes": _NODES, "last_call": 0.1, "lease_ttl": TTL}
_RUN = RecordKeys("job")


class _Run:
    """The nodes of a run that meet at an endpoint of ``store``."""

    def __init__(
        self, store: Store, endpoint: Endpoint, namespace: str, forks: TorchForks, folder: Path
    ) -> None:
        self._forks = forks
        self._folder = folder
        options = {**store.options, **({"namespace": namespace} if store.has_namespaces else {})}
        self._given = {
            "folder": str(folder),
            "backend": store.backend,
            "endpoint": str(endpoint),
            "options": options,
            "parameters": _RULES,
        }
        self._ledger = store.ledger(endpoint, namespace=namespace)
        self._all: list[Forked] = []
        self._alive: dict[str, Forked] = {}
        self._moments = random.Random(seed := random.SystemRandom().getrandbits(32))
        print("seed:", seed)

    def close(self) -> None:
        """Nothing of it runs afterwards."""
        self._ledger.close()
        for node in self._all:
            node.close()

    def start(self) -> None:
        """One more node."""
        name = f"n{len(self._all)}"
        call = "tests.integration.rendezvous.workerless_node:run"
        env = {name: os.environ[name] for name in (MARK, "TMPDIR")}
        output = self._folder / f"{name}.out"
        node = self._forks.fork(call, {"name": name, **self._given}, output, env)
        self._all.append(node)
        self._alive[name] = node

    def kill(self) -> None:
        """Kill a node, and end its lease as its guardian does. Half of the kills come when all
        nodes have joined.
        """
        if self._moments.random() < 0.5:
            until("all have joined", lambda: self._alive.keys() <= self._members())
        time.sleep(self._moments.uniform(0, 0.05))
        name = self._moments.choice(list(self._alive))
        node = self._alive.pop(name)
        node.signal(signal.SIGKILL)
        assert node.ended(10)
        revocation = self._folder / f"{name}.revocation"
        if revocation.exists() and (text := revocation.read_text()):
            with suppress(RendezvousError):  # the server was in that node
                LeaseRevocation.from_json(json.loads(text)).prepare()()

    def succeed(self) -> None:
        """Have all that are alive meet in a round, and succeed."""
        until("a round of those that are alive", lambda: self._last_round() == set(self._alive))
        (self._folder / "succeed").touch()
        for name, node in self._alive.items():
            assert node.ended(30), f"{name} still runs"
            assert (self._folder / f"{name}.end").read_text() == "FinishedWell"

    def _members(self) -> set[str]:
        return {member.name for member in self._read(_RUN.members)}

    def _last_round(self) -> set[str]:
        rounds = [one for one in self._read(_RUN.log) if isinstance(one, Assignment)]
        last = max(rounds, key=lambda one: one.stage, default=None)
        return {seat.name for seat in last.seats} if last else set()

    def _read(self, scope: str) -> list[Any]:
        with suppress(LedgerUnavailable):  # another server is in its place
            records = self._ledger.read(scope, deadline=time.monotonic() + 10).records
            return [decode(one.key, one.value) for one in records]
        return []


@pytest.fixture
def forks(temporary: Path, store: Store) -> Iterator[TorchForks]:
    """A process to fork nodes from. It has no torch."""
    forks = TorchForks("tests.integration.rendezvous.workerless_node", *_IMPORTS[store.name])
    yield forks
    forks.close()


@pytest.mark.parametrize("store", STORES)
def test_a_run_whose_nodes_are_killed_at_random_moments_goes_on_and_succeeds(
    store: Store, server: ServerPart, forks: TorchForks, tmp_path: Path
) -> None:
    run = _Run(store, server.endpoint, server.namespace, forks, tmp_path)
    with closing(run):
        for _ in range(_NODES):
            run.start()
        for _ in range(_KILLS[store.name]):
            run.kill()
            run.start()
        run.succeed()
    assert len(read_history(server).assignments) > _KILLS[store.name] / 8


@pytest.mark.parametrize("store", [SERVED_BY_A_NODE], ids=str)
def test_a_run_whose_serving_node_is_killed_too_begins_anew_at_the_next_one_and_succeeds(
    store: Store, forks: TorchForks, tmp_path: Path
) -> None:
    run = _Run(store, Endpoint("127.0.0.1", free_ports(1)[0]), "llutil", forks, tmp_path)
    with closing(run):
        for _ in range(_NODES):
            run.start()
        for _ in range(_KILLS[store.name] // 2):
            run.kill()
            run.start()
        run.succeed()
