"""Real stores for the tests of this folder, and a check that ledgers leave nothing open and print nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from llutil.ledgers.endpoints import Endpoint
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.ledger import EtcdLedger
from tests.ledger_contract import World
from tests.servers import EtcdServer, etcd
from tests.zookeepers import ZooKeeperServer, zookeeper

_GONE = 5.0  # seconds for gRPC to close what it was told to close


def _sockets() -> int:
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed since
            count += str(fd.readlink()).startswith("socket:")
    return count


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test no socket is left, and nothing was printed (but gRPC's own word on failed handshakes)."""
    before = _sockets()
    yield
    deadline = time.monotonic() + _GONE
    while (left := _sockets() - before) > 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left <= 0, f"{left} sockets are left"
    printed = capfd.readouterr().err.splitlines()
    assert [line for line in printed if "Handshake failed" not in line] == []


@pytest.fixture(scope="session")
def server() -> Iterator[EtcdServer]:
    """One etcd for all tests that do it no harm."""
    with etcd() as server:
        yield server


@pytest.fixture(scope="session")
def shared_zookeeper() -> Iterator[ZooKeeperServer]:
    """One ZooKeeper for all tests that do not kill it."""
    with zookeeper() as server:
        yield server


@pytest.fixture
def world(server: EtcdServer, quiet: None) -> Iterator[World]:
    """Nodes on that etcd, under a namespace of this test alone."""
    with world_on(server.endpoint).open() as world:
        yield world


def world_on(
    *endpoints: Endpoint,
    ttl: float = 10.0,
    namespace: str = "",
    settings: Mapping[str, str] | None = None,
) -> World:
    """A world on these endpoints, with these settings of ``EtcdConfig``."""
    return World(
        lambda namespace, on_change: EtcdLedger(
            EtcdConfig(endpoints=endpoints, namespace=namespace, **(settings or {})), on_change
        ),
        namespace=namespace or f"tests/{secrets.token_hex(4)}",
        ttl=ttl,
    )
