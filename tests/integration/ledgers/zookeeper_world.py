"""Nodes of a test whose ledgers are on a ZooKeeper."""

from __future__ import annotations

import secrets

from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.ledger import ZooKeeperLedger
from tests.ledger_contract import World

__all__ = ["world_on"]


def world_on(endpoint: object, *, ttl: float = 10.0, namespace: str = "", **access: str) -> World:
    """A world there."""
    return World(
        lambda namespace, told: ZooKeeperLedger(
            ZooKeeperConfig.at(str(endpoint), namespace=namespace, **access), told
        ),
        namespace=namespace or f"tests/{secrets.token_hex(4)}",
        ttl=ttl,
    )
