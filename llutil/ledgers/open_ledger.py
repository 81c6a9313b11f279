"""From a rendezvous backend's name to a ledger on its store: ``opener``.

This module imports a store's own modules, and with them grpc or kazoo, inside functions only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llutil.errors import ConfigError
from llutil.ledgers.endpoints import parse_endpoints

if TYPE_CHECKING:
    from llutil.ledgers.protocol import Ledger

__all__ = ["Opener", "opener"]

Opener = Callable[[Callable[[], None]], "Ledger"]
"""Opens a ledger that calls this whenever something may have changed."""


def opener(backend: str, endpoint: str, access: Mapping[str, str]) -> Opener:
    """What opens a ledger for ``backend``, "etcd" or "zeus-adapter". Nothing is sent yet.

    ``endpoint`` is ``host:port[,host:port...]``, for ZooKeeper with ``[/chroot]``; ``access`` has
    further fields of the store's configuration.

    :raises ConfigError: they do not go together, or the package that it takes is not installed.
    """
    if backend == "zeus-adapter":
        return _zookeeper(endpoint, access)
    from llutil.ledgers.etcd.config import EtcdConfig
    from llutil.ledgers.etcd.ledger import EtcdLedger

    config = EtcdConfig(endpoints=parse_endpoints(endpoint), **access)
    return lambda on_change: EtcdLedger(config, on_change)


def _zookeeper(endpoint: str, access: Mapping[str, str]) -> Opener:
    from llutil.ledgers.zookeeper.config import ZooKeeperConfig

    config = ZooKeeperConfig.at(endpoint, **access)
    try:
        from llutil.ledgers.zookeeper.ledger import ZooKeeperLedger
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "kazoo":
            raise
        raise ConfigError(
            "rdzv_backend 'zeus-adapter' needs the package kazoo: install the extra 'zookeeper', as in "
            "pip install 'airflow-provider-elastic-launch[zookeeper]'"
        ) from error
    return lambda on_change: ZooKeeperLedger(config, on_change)
