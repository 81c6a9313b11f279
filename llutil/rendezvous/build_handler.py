"""Makes a node's rendezvous from its configuration: torch's handler, or a driver on a ledger.

The launcher does not use torch's registry: there, ``etcd`` means etcd's v2 API (torch 2.13), which
etcd 3.6 no longer has. This module may import torch, etcd3, grpc and kazoo, inside functions.
"""

from __future__ import annotations

import math
import os
import socket
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from llutil.backends.table import C10D
from llutil.errors import ConfigError, RendezvousError

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler

    from llutil.events.cut_order import CutOrder
    from llutil.ledgers.served.job_server import JobServer
    from llutil.rendezvous.config import RendezvousConfig
    from llutil.rendezvous.driver.driver import Driver

__all__ = ["build_driver", "build_handler", "serve_ledger"]


def build_handler(config: RendezvousConfig) -> RendezvousHandler:
    """A new handler. It connects to nothing before ``next_rendezvous``.

    :raises ConfigError: torch does not accept the backend's options.
    """
    if config.embedded:
        from llutil.rendezvous.handlers.single_node_handler import SingleNodeRendezvousHandler

        return SingleNodeRendezvousHandler(config.run_id)
    if config.has_ledger:
        from llutil.rendezvous.handlers.ledger_handler import LedgerRendezvousHandler

        return LedgerRendezvousHandler(
            config.backend.name, config.run_id, lambda: build_driver(config)
        )
    return _torch_handler(config)


def build_driver(config: RendezvousConfig, cut_order: CutOrder | None = None) -> Driver:
    """A new driver, not started, for a backend with a ledger. ``cut_order``: who cuts this node off
    from its store on purpose, if anybody may.

    :raises ConfigError: the options contradict each other, or the package that the ledger needs is
        not installed.
    :raises RendezvousError: this node's own address cannot be determined.
    """
    from llutil.ledgers.cut_ledger import cut_ledger_opener
    from llutil.ledgers.open_ledger import ledger_opener
    from llutil.rendezvous.driver.driver import Driver
    from llutil.rendezvous.driver.round_store import RoundStore
    from llutil.rendezvous.protocol.parameters import ProtocolParameters
    from llutil.rendezvous.protocol.record_keys import RecordKeys
    from llutil.rendezvous.protocol.records import Member
    from llutil.system.addresses import machine_id

    options = config.options
    open_ledger = ledger_opener(config.backend, config.endpoint, options, run_id=config.run_id)
    if cut_order is not None:
        open_ledger = cut_ledger_opener(open_ledger, cut_order)
    parameters = ProtocolParameters(
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        max_restarts=config.max_restarts,
        last_call=options["last_call_timeout"],
        timeout=options["timeout"],
        lease_ttl=options["lease_ttl"],
        saves_before_growth=config.saves_before_growth,
        growth_timeout=options["growth_timeout"],
        unique_run=config.unique_run,
        runs_again=config.max_restarts is not None,
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
        parameters, profile, RecordKeys(config.run_id), open_ledger, lambda: RoundStore(address)
    )


def serve_ledger(config: RendezvousConfig) -> tuple[RendezvousConfig, JobServer]:
    """Serve the job's ledger, if this node is the one that does. The configuration then says where.
    A node that finds the port taken stands by. Whoever gets the server closes it.

    :raises ConfigError, RendezvousError: see ``start_server``.
    """
    from llutil.ledgers.served.config import ServedConfig
    from llutil.ledgers.served.job_server import JobServer
    from llutil.ledgers.served.server import LedgerServer
    from llutil.ledgers.served.serving_node import start_server
    from llutil.system.addresses import host_and_port

    (endpoint,) = config.backend.endpoints(config.endpoint)
    secret = config.options.get("secret", "")
    server = start_server(
        ServedConfig(endpoint=endpoint, secret=secret, run_id=config.run_id),
        serves=config.options.get("serves"),
        several=config.max_nodes > 1,
    )
    if not isinstance(server, LedgerServer):
        return config, server or JobServer()
    place = host_and_port(endpoint.host, server.port)
    return replace(config, endpoint=place, options={**config.options, "serves": True}), server


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
        f"no route from this host to the rendezvous ({'; '.join(tried)}): correct the endpoint, "
        "or set local_addr to this node's own address"
    )


def _torch_handler(config: RendezvousConfig) -> RendezvousHandler:
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    options = {**config.options}
    if config.backend is C10D:
        # torch's dynamic handler reads join_timeout and not the documented timeout (torch 2.13).
        options.setdefault("join_timeout", options["timeout"])
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
        handler = get_rendezvous_handler(parameters)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"torch's rdzv_backend {config.backend.name!r} does not accept its options: {error}"
        ) from error
    if config.backend is C10D:
        from llutil.rendezvous.handlers.c10d_handler import C10dRendezvousHandler

        return C10dRendezvousHandler(handler)
    return handler
