"""How a plain torchrun finds this package's rendezvous: entry points of the group
``torchrun.handlers``.

torch calls these functions while it imports its own rendezvous package (torch 2.13), once, and only
warns if that fails. So nothing is imported here before a handler is asked for but the standard
library and ``llutil.backends``. ``etcd-v3`` differs from the launcher's own name ("etcd") because
torch has taken that one for etcd's v2 API.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from llutil.backends.backend import Backend
from llutil.backends.table import ETCD, ZEUS_ADAPTER

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

__all__ = ["etcd_v3", "zeus_adapter"]


def etcd_v3() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """What makes handlers for ``torchrun --rdzv-backend etcd-v3 --rdzv-endpoint
    host:port[,host:port...]``.

    ``--rdzv-conf`` takes the options that ``llutil.backends.table`` has for the backend.
    """
    return functools.partial(_handler, ETCD)


def zeus_adapter() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """What makes handlers for ``torchrun --rdzv-backend zeus-adapter --rdzv-endpoint
    host:port[,host:port...][/chroot]``.

    It meets through ZooKeeper; ``llutil.ledgers.zookeeper`` says why that name. ``--rdzv-conf`` as
    for ``etcd_v3``.
    """
    return functools.partial(_handler, ZEUS_ADAPTER)


def _handler(backend: Backend, params: RendezvousParameters) -> RendezvousHandler:
    """A handler that has not met anybody yet.

    :raises ConfigError: the options cannot work; all problems are listed.
    :raises RendezvousError: this node's own address cannot be found out.
    """
    from llutil.rendezvous.build_handler import driver_for
    from llutil.rendezvous.config import RendezvousConfig
    from llutil.rendezvous.handlers.ledger_handler import LedgerRendezvous

    config = RendezvousConfig(
        backend=backend,
        endpoint=params.endpoint,
        run_id=params.run_id,
        min_nodes=params.min_nodes,
        max_nodes=params.max_nodes,
        local_addr=params.local_addr,
        options=backend.values(params.config, "--rdzv-conf"),
    )
    driver = driver_for(config)  # now, so that what cannot work is said before anything runs
    return LedgerRendezvous(params.backend, params.run_id, lambda: driver)
