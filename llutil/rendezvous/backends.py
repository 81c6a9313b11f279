"""From a backend's name to what a node meets the others through: torch's handler, or a driver on a
ledger.

The launcher looks names up here and not in torch's registry, where ``etcd`` means etcd's v2 API,
which etcd 3.6 no longer has (torch 2.13). This module may import torch, etcd3, grpc and kazoo,
inside functions.
"""

from __future__ import annotations

import math
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llutil.errors import ConfigError, RendezvousError

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

    from llutil.rendezvous.driver.driver import Driver

__all__ = ["RendezvousConfig", "driver_for", "handler_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousConfig:
    """Where and as whom a node meets the others. ``configs`` holds the backend's own options.

    ``token`` is the caller's rerun token, ``index`` the preferred place in the order of ranks,
    ``label`` what people call this node. ``max_restarts`` None leaves the restart budget to the
    agent.
    """

    backend: str
    endpoint: str
    run_id: str
    min_nodes: int
    max_nodes: int
    local_addr: str | None
    configs: Mapping[str, Any]
    role: str = "default_role"
    nproc: int = 1
    max_restarts: int | None = None
    token: str = ""
    index: int | None = None
    label: str = ""

    @property
    def embedded(self) -> bool:
        """Whether there is nobody to meet: one node, and no endpoint was named."""
        return self.max_nodes == 1 and not self.endpoint

    @property
    def has_ledger(self) -> bool:
        """Whether nodes agree through a ledger of ours, and not through a backend of torch's."""
        return not self.embedded and self.backend in {"etcd", "zeus-adapter"}

    @property
    def hosted(self) -> bool:
        """Whether one of the nodes hosts the store, and the endpoint is that of its door."""
        return self.backend == "c10d" and "door" in self.configs


def handler_for(meeting: RendezvousConfig) -> RendezvousHandler:
    """A handler that has not met anybody yet.

    :raises ConfigError: the backend does not exist, or not in this installation.
    """
    if meeting.embedded:
        from llutil.rendezvous.handlers.single_node_handler import SingleNodeRendezvous

        return SingleNodeRendezvous(meeting.run_id)
    if meeting.has_ledger:
        from llutil.rendezvous.handlers.ledger_handler import LedgerRendezvous

        return LedgerRendezvous(meeting.backend, meeting.run_id, lambda: driver_for(meeting))
    if meeting.backend in {"c10d", "static"}:
        return _torch_handler(meeting)
    raise ConfigError(f"rdzv_backend {meeting.backend!r} is unknown")


def driver_for(meeting: RendezvousConfig) -> Driver:
    """A driver that has not started yet, for a backend with a ledger.

    :raises ConfigError: the options do not go together, or the backend does not exist in this
        installation.
    :raises RendezvousError: this node's own address cannot be found out.
    """
    from llutil.ledgers.open_ledger import opener
    from llutil.rendezvous.driver.driver import Driver
    from llutil.rendezvous.driver.round_store import RoundStore
    from llutil.rendezvous.ledger_options import LedgerOptions
    from llutil.rendezvous.protocol.parameters import ProtocolParameters
    from llutil.rendezvous.protocol.record_keys import RecordKeys
    from llutil.rendezvous.protocol.records import Member
    from llutil.system.addresses import machine_id

    options = LedgerOptions.read(meeting.backend, meeting.configs)
    open_ledger = opener(meeting.backend, meeting.endpoint, options.access)
    rules = ProtocolParameters(
        min_nodes=meeting.min_nodes,
        max_nodes=meeting.max_nodes,
        max_restarts=meeting.max_restarts,
        last_call=options.last_call,
        timeout=options.timeout,
        lease_ttl=options.lease_ttl,
    )
    address = _address(meeting)
    profile = Member(
        node="",
        name=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
        host=machine_id(),
        address=address,
        role=meeting.role,
        nproc=meeting.nproc,
        index=meeting.index,
        token=meeting.token,
        label=meeting.label,
    )
    return Driver(
        rules, profile, RecordKeys(meeting.run_id), open_ledger, lambda: RoundStore(address)
    )


def _address(meeting: RendezvousConfig) -> str:
    from llutil.ledgers.endpoints import parse_endpoints
    from llutil.ledgers.zookeeper.config import split_chroot
    from llutil.system.addresses import local_address

    if meeting.local_addr:
        return meeting.local_addr.strip("[]")
    tried = []
    servers = meeting.endpoint
    if meeting.backend == "zeus-adapter":
        servers, _ = split_chroot(servers)
    for endpoint in parse_endpoints(servers):
        try:
            return local_address(endpoint.host, endpoint.port)
        except OSError as error:
            tried.append(f"{endpoint}: {error}")
    raise RendezvousError(
        f"no route from this host to the rendezvous ({'; '.join(tried)}); give local_addr if the name is right"
    )


def _torch_handler(meeting: RendezvousConfig) -> RendezvousHandler:
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    configs = dict(meeting.configs)
    if meeting.backend == "c10d":
        # torch's dynamic handler reads join_timeout and not the documented timeout, and whole
        # seconds (torch 2.13).
        configs.setdefault("join_timeout", math.ceil(configs["timeout"]))
    secret = str(configs.pop("door", ""))
    parameters = RendezvousParameters(
        backend=meeting.backend,
        endpoint=meeting.endpoint,
        run_id=meeting.run_id,
        min_nodes=meeting.min_nodes,
        max_nodes=meeting.max_nodes,
        local_addr=meeting.local_addr,
        **configs,
    )
    try:
        if meeting.hosted:
            return _hosted_handler(meeting, secret, parameters)
        handler = get_rendezvous_handler(parameters)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"rdzv_backend {meeting.backend!r} of torch does not take its options: {error}"
        ) from error
    if meeting.backend == "c10d":
        from llutil.rendezvous.handlers.c10d_handler import FreshStores

        return FreshStores(handler)
    return handler


def _hosted_handler(
    meeting: RendezvousConfig, secret: str, parameters: RendezvousParameters
) -> RendezvousHandler:
    from llutil.rendezvous.hosted.handler import HostedRendezvous
    from llutil.rendezvous.hosted.node_store import StoreAddress

    host, _, port = meeting.endpoint.rpartition(":")
    place = StoreAddress(
        host=host.strip("[]"),
        port=int(port),
        secret=secret,
        hosts=bool(parameters.get_as_bool("is_host")),
        local_addr=meeting.local_addr,
        index=meeting.index,
        label=meeting.label,
    )
    return HostedRendezvous(place, parameters)
