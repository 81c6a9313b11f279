"""The ledger on a real ZooKeeper: the contract of all ledgers, and what is ZooKeeper's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.ledgers.zookeeper_world import world_on
from tests.ledger_contract import LedgerContract, World
from tests.zookeepers import ZooKeeperServer

pytestmark = pytest.mark.zookeeper


@pytest.fixture
def server(shared_zookeeper: ZooKeeperServer) -> ZooKeeperServer:
    """One ZooKeeper for all tests that do not kill it."""
    return shared_zookeeper


@pytest.fixture
def world(server: ZooKeeperServer, quiet: None) -> Iterator[World]:
    """Nodes on that ZooKeeper, under a namespace of this test alone."""
    with world_on(server.endpoint).open() as world:
        yield world


class TestZooKeeperLedger(LedgerContract):
    """The contract."""
