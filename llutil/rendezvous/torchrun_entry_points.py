"""Entry points of the group ``torchrun.handlers``, by which plain torchrun finds this package's
rendezvous.

torch calls these functions once, while it imports its own rendezvous package, and only warns if one
fails (torch 2.13). So this module imports nothing but the standard library and ``llutil.backends``
before a handler is asked for. The backend is called ``etcd-v3`` here and "etcd" in the launcher,
because "etcd" in torch's registry means etcd's v2 API.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from llutil.backends.backend import Backend
from llutil.backends.table import ETCD, SERVED, ZEUS_ADAPTER

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

__all__ = ["etcd_v3", "served", "zeus_adapter"]


def etcd_v3() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """The function that makes handlers for ``torchrun --rdzv-backend etcd-v3 --rdzv-endpoint
    host:port[,host:port...]``.

    ``--rdzv-conf`` accepts the backend's options in ``llutil.backends.table``.
    """
    return functools.partial(_handler, ETCD)


def zeus_adapter() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """The function that makes handlers for ``torchrun --rdzv-backend zeus-adapter --rdzv-endpoint
    host:port[,host:port...][/chroot]``.

    The nodes meet through ZooKeeper; ``llutil.ledgers.zookeeper`` explains the name.
    ``--rdzv-conf`` accepts the backend's options in ``llutil.backends.table``.
    """
    return functools.partial(_handler, ZEUS_ADAPTER)


def served() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """The function that makes handlers for ``torchrun --rdzv-backend served --rdzv-endpoint
    host:port``. The node with the address ``host`` serves the ledger.

    ``--rdzv-conf`` accepts the backend's options in ``llutil.backends.table``.
    """
    return functools.partial(_handler, SERVED)


def _handler(backend: Backend, params: RendezvousParameters) -> RendezvousHandler:
    """A new handler. It connects to nothing before ``next_rendezvous``.

    :raises ConfigError: options are wrong; the text lists all problems.
    :raises RendezvousError: this node's own address cannot be determined.
    """
    from llutil.ledgers.served.job_server import JobServer
    from llutil.rendezvous.build_handler import build_driver, serve_ledger
    from llutil.rendezvous.config import RendezvousConfig
    from llutil.rendezvous.handlers.ledger_handler import LedgerRendezvousHandler

    backend.refuse_rest_of_secret(params.config, "--rdzv-conf")
    config = RendezvousConfig(
        backend=backend,
        endpoint=params.endpoint,
        run_id=params.run_id,
        min_nodes=params.min_nodes,
        max_nodes=params.max_nodes,
        local_addr=params.local_addr,
        options=backend.values(params.config, "--rdzv-conf"),
    )
    server = JobServer()
    if config.served:
        config, server = serve_ledger(config)
    try:
        driver = build_driver(config)  # now, so that what cannot work is said before anything runs
    except BaseException:
        server.close()
        raise
    handler = LedgerRendezvousHandler(params.backend, params.run_id, lambda: driver, server)
    weakref.finalize(handler, server.close)  # also of one that nobody has shut down
    return handler
