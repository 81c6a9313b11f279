"""The ledger on a real ZooKeeper: the contract of all ledgers, and what is ZooKeeper's own."""

from __future__ import annotations

import subprocess
import sys
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


def test_a_forked_child_is_refused_and_a_process_that_ends_without_closing_ends_in_silence(
    server: ZooKeeperServer, world: World
) -> None:
    code = (
        "from tests.integration.ledgers.child import zookeeper_forks; "
        f"zookeeper_forks({str(server.endpoint)!r}, {world.namespace!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    *refusals, sees, parent = done.stdout.splitlines()
    assert len(refusals) == 3
    assert all("which was forked from it; open another one there" in one for one in refusals)
    assert (sees, parent) == ("child sees 1", "parent connected 1")


def test_a_will_is_carried_out_without_any_package_but_our_own() -> None:
    code = "from llutil.ledgers.zookeeper.handshake import perform; import sys; print('kazoo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
