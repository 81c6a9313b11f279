"""From a rendezvous' configuration to what a node meets the others through: torch's handler, or a
driver on a ledger.

The launcher asks here and not torch's registry, where ``etcd`` means etcd's v2 API,
which etcd 3.6 no longer has (torch 2.13). This module may import torch, etcd3, grpc and kazoo,
inside functions.
"""

from __future__ import annotations

import math
import os
import socket
import uuid
from typing import TYPE_CHECKING

from llutil.backends.table import C10D
from llutil.errors import ConfigError, RendezvousError

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

    from llutil.rendezvous.config import RendezvousConfig
    from llutil.rendezvous.driver.driver import Driver

__all__ = ["driver_for", "handler_for"]


def handler_for(config: RendezvousConfig) -> RendezvousHandler:
    """A handler that has not met anybody yet.

    :raises ConfigError: torch does not take the backend's options.
    """
    if config.embedded:
        from llutil.rendezvous.handlers.single_node_handler import SingleNodeRendezvous

        return SingleNodeRendezvous(config.run_id)
    if config.has_ledger:
        from llutil.rendezvous.handlers.ledger_handler import LedgerRendezvous

        return LedgerRendezvous(config.backend.name, config.run_id, lambda: driver_for(config))
    return _torch_handler(config)


def driver_for(config: RendezvousConfig) -> Driver:
    """A driver that has not started yet, for a backend with a ledger.

    :raises ConfigError: the options do not go together, or the package that the ledger needs is
        not installed.
    :raises RendezvousError: this node's own address cannot be found out.
    """
    from llutil.ledgers.open_ledger import ledger_opener
    from llutil.rendezvous.driver.driver import Driver
    from llutil.rendezvous.driver.round_store import RoundStore
    from llutil.rendezvous.protocol.parameters import ProtocolParameters
    from llutil.rendezvous.protocol.record_keys import RecordKeys
    from llutil.rendezvous.protocol.records import Member
    from llutil.system.addresses import machine_id

    options = config.options
    open_ledger = ledger_opener(config.backend, config.endpoint, options)
    rules = ProtocolParameters(
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        max_restarts=config.max_restarts,
        last_call=options["last_call_timeout"],
        timeout=options["timeout"],
        lease_ttl=options["lease_ttl"],
    )
    address = _address(config)
    profile = Member(
        node="",
        name=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
        host=machine_id(),
        address=address,
        role=config.role,
        nproc=config.nproc,
        index=config.index,
        token=config.token,
        label=config.label,
    )
    return Driver(
        rules, profile, RecordKeys(config.run_id), open_ledger, lambda: RoundStore(address)
    )


def _address(config: RendezvousConfig) -> str:
    from llutil.system.addresses import local_address

    if config.local_addr:
        return config.local_addr.strip("[]")
    tried = []
    for endpoint in config.backend.endpoints(config.endpoint):
        try:
            return local_address(endpoint.host, endpoint.port)
        except OSError as error:
            tried.append(f"{endpoint}: {error}")
    raise RendezvousError(
        f"no route from this host to the rendezvous ({'; '.join(tried)}); "
        "give local_addr if the name is right"
    )


def _torch_handler(config: RendezvousConfig) -> RendezvousHandler:
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    options = {**config.options}
    if config.backend is C10D:
        # torch's dynamic handler reads join_timeout and not the documented timeout (torch 2.13).
        options.setdefault("join_timeout", options["timeout"])
    secret = str(options.pop("door", ""))
    # torch counts in whole seconds, from 1 on (2.13).
    seconds = {o.key for o in config.backend.options if o.kind.is_duration}
    options |= {key: max(1, math.ceil(options[key])) for key in seconds & options.keys()}
    parameters = RendezvousParameters(
        backend=config.backend.name,
        endpoint=config.endpoint,
        run_id=config.run_id,
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        local_addr=config.local_addr,
        **options,
    )
    try:
        if config.hosted:
            return _hosted_handler(config, secret, parameters)
        handler = get_rendezvous_handler(parameters)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"rdzv_backend {config.backend.name!r} of torch does not take its options: {error}"
        ) from error
    if config.backend is C10D:
        from llutil.rendezvous.handlers.c10d_handler import FreshStores

        return FreshStores(handler)
    return handler


def _hosted_handler(
    config: RendezvousConfig, secret: str, parameters: RendezvousParameters
) -> RendezvousHandler:
    from llutil.rendezvous.hosted.handler import HostedRendezvous
    from llutil.rendezvous.hosted.node_store import StoreAddress

    (door,) = config.backend.endpoints(config.endpoint)
    place = StoreAddress(
        host=door.host,
        port=door.port,
        secret=secret,
        hosts=bool(parameters.get_as_bool("is_host")),
        local_addr=config.local_addr,
        index=config.index,
        label=config.label,
    )
    return HostedRendezvous(place, parameters)
