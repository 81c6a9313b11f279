"""The ledger on a real ZooKeeper: the contract of all ledgers, and what is ZooKeeper's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.ledger import ZooKeeperLedger
from tests.ledger_contract import LedgerContract, World
from tests.zookeepers import ZooKeeperServer, zookeeper

pytestmark = pytest.mark.zookeeper


@pytest.fixture(scope="module")
def server() -> Iterator[ZooKeeperServer]:
    """One ZooKeeper for all tests that do it no harm."""
    with zookeeper() as server:
        yield server


def world_on(endpoint: object, *, ttl: float = 10.0, namespace: str = "", **access: str) -> World:
    """A world there."""
    return World(
        lambda namespace, told: ZooKeeperLedger(
            ZooKeeperConfig.at(str(endpoint), namespace=namespace, **access), told
        ),
        namespace=namespace or f"tests/{secrets.token_hex(4)}",
        ttl=ttl,
    )


@pytest.fixture
def world(server: ZooKeeperServer, quiet: None) -> Iterator[World]:
    """Nodes on that ZooKeeper, under a namespace of this test alone."""
    with world_on(server.endpoint).open() as world:
        yield world


class TestZooKeeperLedger(LedgerContract):
    """The contract."""
