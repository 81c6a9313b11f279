"""The ledger on a real ZooKeeper: the contract of all ledgers, and what is ZooKeeper's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.ledgers.zookeeper_world import world_on
from tests.ledger_contract import LedgerContract, World
from tests.zookeepers import ZooKeeperServer, zookeeper

pytestmark = pytest.mark.zookeeper


@pytest.fixture(scope="module")
def server() -> Iterator[ZooKeeperServer]:
    """One ZooKeeper for all tests that do it no harm."""
    with zookeeper() as server:
        yield server


@pytest.fixture
def world(server: ZooKeeperServer, quiet: None) -> Iterator[World]:
    """Nodes on that ZooKeeper, under a namespace of this test alone."""
    with world_on(server.endpoint).open() as world:
        yield world


class TestZooKeeperLedger(LedgerContract):
    """The contract."""
