"""A node whose agent alone was killed: its guardian tells the store, and its peers do not wait for
the lease.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rendezvous.conftest import MakeJob
from tests.support.certificates import Authority
from tests.support.launches import is_alive
from tests.support.stores import STORES, Server, Store

_ALL = ("plain", "password", "certificate")
_KINDS = {"etcd": _ALL, "zookeeper": _ALL, "served": ("password",)}
"""Which kinds of access a store knows. A served ledger's password is its secret."""

pytestmark = [
    pytest.mark.launch,
    pytest.mark.fault,
    pytest.mark.parametrize(
        ("store", "kind"),
        [
            pytest.param(*store.values, kind, marks=store.marks, id=f"{store.id}-{kind}")
            for store in STORES
            for kind in _KINDS[store.values[0].name]
        ],
    ),
]

TTL = 20
RENEWED = TTL / 3  # seconds between two renewals


@pytest.fixture
def access(store: Store, kind: str, tmp_path: Path) -> Iterator[tuple[Server, Any]]:
    """A server, and the options of a client that it lets in."""
    with ExitStack() as stack:
        match kind:
            case "plain":
                yield stack.enter_context(store.start()), {}
            case "password":
                yield stack.enter_context(store.guarded()), store.access
            case _:
                authority = Authority(tmp_path)
                node = authority.issue("node", "node")
                pair = authority.issue("server", "127.0.0.1")
                server = stack.enter_context(store.start(tls=pair, client_ca=authority.cert))
                files = {"cacert": authority.cert, "cert": node.cert, "key": node.key}
                yield server, {name: str(path) for name, path in files.items()}


def test_peers_of_a_killed_agent_go_on_long_before_its_lease_is_over(
    make_job: MakeJob, access: tuple[Server, dict[str, str]]
) -> None:
    server, options = access
    configs = {"lease_ttl": TTL, **options}
    size = {"min_nodes": 1, "max_nodes": 2, "nproc_per_node": 2}
    job = make_job(server.endpoint, rdzv_configs=configs, **size)
    for name in "ab":
        job.node(name, rdzv_configs={"last_call_timeout": 60})
    crew = job.runs("a", "b")
    killed, survivor = job.agents
    before = len(job.workers())
    began = time.monotonic()
    killed.kill()
    job.runs(survivor.name, after=before, seconds=TTL - RENEWED)
    took = time.monotonic() - began
    print(f"the survivor's workers ran {took:.3f} s after the kill; the lease was of {TTL} s")
    assert took < TTL - RENEWED
    assert not [one for one in crew if one["node"] == killed.name and is_alive(one["pid"])]
    job.succeed()
    survivor.ends()
