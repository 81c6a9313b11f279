"""``ledger_opener``: opens the ledger of a rendezvous backend.

This module imports a store's own modules, and with them grpc or kazoo, only inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llutil.backends.backend import Backend
from llutil.backends.table import ETCD, SERVED, ZEUS_ADAPTER
from llutil.errors import ConfigError

if TYPE_CHECKING:
    from llutil.ledgers.protocol import Ledger

__all__ = ["Opener", "ledger_opener"]

Opener = Callable[[Callable[[], None]], "Ledger"]
"""Opens a ledger. Its argument is the ledger's callback for changes."""


def ledger_opener(
    backend: Backend, endpoint: str, options: Mapping[str, Any], *, run_id: str = ""
) -> Opener:
    """A function that opens a ledger for ``backend``. ``endpoint`` has the form that the backend's
    table says. Nothing is sent yet.

    Those of ``options`` that are text are fields of the store's configuration. ``run_id``: a ledger
    that a node serves has to be that of this job.

    :raises ConfigError: the values do not fit each other, or a package that the store needs is not
        installed.
    """
    settings = {key: value for key, value in options.items() if isinstance(value, str)}
    if backend is SERVED:
        # A server that this node was pointed to, or has itself, is the only one that will do.
        return _served(endpoint, settings, run_id=run_id, returns="serves" not in options)
    return _OPENERS[backend](endpoint, settings)


def _etcd(endpoint: str, settings: Mapping[str, str]) -> Opener:
    from llutil.ledgers.etcd.config import EtcdConfig
    from llutil.ledgers.etcd.ledger import EtcdLedger

    config = EtcdConfig(endpoints=ETCD.endpoints(endpoint), **settings)
    return lambda on_change: EtcdLedger(config, on_change)


def _zookeeper(endpoint: str, settings: Mapping[str, str]) -> Opener:
    from llutil.ledgers.zookeeper.config import ZooKeeperConfig

    config = ZooKeeperConfig.at(endpoint, **settings)
    try:
        from llutil.ledgers.zookeeper.ledger import ZooKeeperLedger
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "kazoo":
            raise
        raise ConfigError(
            "rdzv_backend 'zeus-adapter' needs the package kazoo: install the extra 'zookeeper', "
            "as in pip install 'airflow-provider-elastic-launch[zookeeper]'"
        ) from error
    return lambda on_change: ZooKeeperLedger(config, on_change)


def _served(endpoint: str, settings: Mapping[str, str], *, run_id: str, returns: bool) -> Opener:
    from llutil.ledgers.served.config import ServedConfig
    from llutil.ledgers.served.ledger import ServedLedger

    (server,) = SERVED.endpoints(endpoint)
    config = ServedConfig(endpoint=server, run_id=run_id, returns=returns, **settings)
    return lambda on_change: ServedLedger(config, on_change)


_OPENERS = {ETCD: _etcd, ZEUS_ADAPTER: _zookeeper}
