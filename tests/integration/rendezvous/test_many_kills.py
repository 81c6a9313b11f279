"""A run of many nodes of which one after the other is killed at a random moment, and replaced."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.rendezvous.protocol.record_codec import decode
from llutil.rendezvous.protocol.record_keys import RecordKeys
from tests.integration.rendezvous.jobs import TTL, until
from tests.support.leftovers import MARK
from tests.support.store_history import ServerPart, read_history
from tests.support.stores import STORES, Store
from tests.support.torch_forks import Forked, TorchForks

pytestmark = [pytest.mark.fault, pytest.mark.parametrize("store", STORES)]

_NODES = 4
# A node that imports grpc first takes many times as long as others until it has joined.
_KILLS = {"etcd": 20, "zookeeper": 40, "served": 100}
_IMPORTS = {
    "etcd": [],
    "zookeeper": ["llutil.ledgers.zookeeper.ledger"],
    "served": ["llutil.ledgers.served.ledger"],
}
_RULES = {"min_nodes": 2, "max_nodes": _NODES, "last_call": 0.1, "lease_ttl": TTL}


@pytest.fixture
def forks(temporary: Path, store: Store) -> Iterator[TorchForks]:
    """A process to fork nodes from. It has no torch."""
    forks = TorchForks("tests.integration.rendezvous.workerless_node", *_IMPORTS[store.name])
    yield forks
    forks.close()


def test_a_run_whose_nodes_are_killed_at_random_moments_goes_on_and_succeeds(
    store: Store, server: ServerPart, forks: TorchForks, tmp_path: Path
) -> None:
    """The lease of who was killed is ended at once, as its guardian does it. Half of the kills come
    when all nodes have joined.
    """
    seed = random.SystemRandom().getrandbits(32)
    print("seed:", seed)
    moments = random.Random(seed)
    options = {**store.options}
    if store.has_namespaces:
        options["namespace"] = server.namespace
    given = {
        "folder": str(tmp_path),
        "backend": store.backend,
        "endpoint": str(server.endpoint),
        "options": options,
        "parameters": _RULES,
    }
    env = {name: os.environ[name] for name in (MARK, "TMPDIR")}
    call = "tests.integration.rendezvous.workerless_node:run"
    alive: dict[str, Forked] = {}
    members = RecordKeys("job").members
    with ExitStack() as stack:
        ledger = store.ledger(server.endpoint, namespace=server.namespace)
        stack.enter_context(closing(ledger))

        def start() -> None:
            name = f"n{started}"
            node = forks.fork(call, {"name": name, **given}, tmp_path / f"{name}.out", env)
            stack.callback(node.close)
            alive[name] = node

        def kill() -> None:
            name = moments.choice(list(alive))
            node = alive.pop(name)
            node.signal(signal.SIGKILL)
            assert node.ended(10)
            revocation = tmp_path / f"{name}.revocation"
            if revocation.exists() and (text := revocation.read_text()):
                LeaseRevocation.from_json(json.loads(text)).prepare()()

        def all_have_joined() -> bool:
            records = ledger.read(members, deadline=time.monotonic() + 10).records
            return alive.keys() <= {decode(one.key, one.value).name for one in records}

        for started in range(_NODES + _KILLS[store.name]):
            if started >= _NODES:
                if moments.random() < 0.5:
                    until("all have joined", all_have_joined)
                time.sleep(moments.uniform(0, 0.05))
                kill()
            start()
        until(
            "a round of those that are alive",
            lambda: _names_of_last_round(server) == set(alive),
        )
        (tmp_path / "succeed").touch()
        for name, node in alive.items():
            assert node.ended(30), f"{name} still runs"
            assert (tmp_path / f"{name}.end").read_text() == "FinishedWell"
    history = read_history(server)
    assert len(history.assignments) > _KILLS[store.name] / 8


def _names_of_last_round(server: ServerPart) -> set[str]:
    history = read_history(server)
    names = {node: name for name, nodes in history.names.items() for node in nodes}
    return {names[node] for node in history.assignments[-1].nodes} if history.assignments else set()
