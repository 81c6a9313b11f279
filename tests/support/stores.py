"""The real stores, as values: etcd, ZooKeeper, and a served ledger. A test that holds for all takes
one as a parameter:

@pytest.mark.parametrize("store", STORES)

One that needs a store with users, or whose data outlive its server, takes one of DURABLE_STORES.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.ledgers import Ledger
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.ledger import EtcdLedger
from llutil.ledgers.served.config import ServedConfig
from llutil.ledgers.served.ledger import ServedLedger
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.ledger import ZooKeeperLedger
from tests.support.etcd_servers import EtcdServer, etcd, etcd_cluster, with_passwords
from tests.support.ledger_contract import World
from tests.support.served_servers import ServedServer, served
from tests.support.zookeeper_servers import (
    ZooKeeperServer,
    zookeeper,
    zookeeper_ensemble,
    zookeeper_of,
)

__all__ = [
    "ANN",
    "DURABLE_STORES",
    "ETCD",
    "SERVED",
    "SERVED_BY_A_NODE",
    "STORES",
    "ZOOKEEPER",
    "Server",
    "Store",
    "leader_first",
    "on_stores",
]

Server = EtcdServer | ServedServer | ZooKeeperServer

ANN = {"user": "ann", "password": "secret", "namespace": "ann/jobs"}
"""The user of an etcd or ZooKeeper of ``Store.guarded``, and a namespace of that user's."""
_SECRET = "a secret"

# Seconds for the election of a leader.
_ELECTION_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A kind of store. ``backend`` and ``torchrun`` are its names as a rendezvous backend.

    ``start`` starts one server (with ``tls`` and ``client_ca``, if given). ``start_members`` starts
    three servers that form one store. ``access`` is what a server of ``guarded`` wants to be told.
    ``options`` are those of ``rdzv_configs`` that each node needs; ``namespace`` is one more, if
    the store ``has_namespaces``.
    """

    name: str
    backend: str
    torchrun: str
    start: Callable[..., AbstractContextManager[Any]]
    start_members: Callable[..., AbstractContextManager[list[Any]]] | None = None
    open: Callable[[tuple[Endpoint, ...], Mapping[str, str], Callable[[], None]], Ledger]
    access: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    has_namespaces: bool = True

    def __str__(self) -> str:
        return self.name

    def ledger(
        self,
        *endpoints: Endpoint,
        on_change: Callable[[], None] = lambda: None,
        **access: str,
    ) -> Ledger:
        """A ledger on these endpoints. The caller closes it."""
        return self.open(endpoints, access, on_change)

    def world(
        self,
        *endpoints: Endpoint,
        ttl: float = 10.0,
        namespace: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> World:
        """Nodes on these endpoints, with these settings of the store's configuration."""
        return World(
            lambda namespace, on_change: self.ledger(
                *endpoints, on_change=on_change, namespace=namespace, **(settings or {})
            ),
            namespace=namespace or f"tests/{secrets.token_hex(4)}",
            ttl=ttl,
        )

    @contextmanager
    def guarded(self, *options: str, **more: Any) -> Iterator[Any]:
        """A server with passwords. /ann belongs to the user ann, whose password is "secret"; /bob
        belongs to another user. A served ledger has no users; it has a secret.
        """
        if self.name == "served":
            more = {**more, **self.access}
        with self.start(*options, **more) as server:
            if isinstance(server, EtcdServer):
                with_passwords(server, {"ann": ("secret", "/ann")})
            elif isinstance(server, ZooKeeperServer):
                zookeeper_of(server, {"ann": "secret", "bob": "another"})
            yield server


def _etcd(
    endpoints: tuple[Endpoint, ...], access: Mapping[str, str], on_change: Callable[[], None]
) -> EtcdLedger:
    return EtcdLedger(EtcdConfig(endpoints=endpoints, **access), on_change)


def _zookeeper(
    endpoints: tuple[Endpoint, ...], access: Mapping[str, str], on_change: Callable[[], None]
) -> ZooKeeperLedger:
    return ZooKeeperLedger(ZooKeeperConfig(endpoints=endpoints, **access), on_change)


def _served(
    endpoints: tuple[Endpoint, ...], access: Mapping[str, str], on_change: Callable[[], None]
) -> ServedLedger:
    (endpoint,) = endpoints
    return ServedLedger(ServedConfig(endpoint=endpoint, **access), on_change)


ETCD = Store(
    name="etcd",
    backend="etcd",
    torchrun="etcd-v3",
    start=etcd,
    start_members=etcd_cluster,
    open=_etcd,
    access=ANN,
)
ZOOKEEPER = Store(
    name="zookeeper",
    backend="zeus-adapter",
    torchrun="zeus-adapter",
    start=zookeeper,
    start_members=zookeeper_ensemble,
    open=_zookeeper,
    access=ANN,
)
SERVED = Store(
    name="served",
    backend="served",
    torchrun="served",
    start=served,
    open=_served,
    access={"secret": _SECRET},
    options={"serves": False},
    has_namespaces=False,
)
"""A ledger that a process serves which is no node. A ledger in it may have a namespace, so that
tests can share the process; a job's has none, because a node serves one job.
"""

SERVED_BY_A_NODE = replace(SERVED, options={})
"""A ledger that the first node of a job serves, if the endpoint is this machine's."""

DURABLE_STORES = [
    pytest.param(ETCD, marks=pytest.mark.etcd, id="etcd"),
    pytest.param(ZOOKEEPER, marks=pytest.mark.zookeeper, id="zookeeper"),
]
"""Stores with users, of several servers if wanted, whose data outlive these."""

STORES = [*DURABLE_STORES, pytest.param(SERVED, id="served")]


def on_stores(names: str, *rows: tuple[str, ...]) -> pytest.MarkDecorator:
    """The parameters ``store`` and ``names``. A served ledger takes the last row only: for tests
    whose rows are of the protocol, which no store makes different.
    """
    params = [
        pytest.param(*store.values, *row, marks=store.marks, id="-".join([store.id, *row]))
        for store in STORES
        for row in (rows[-1:] if store.values[0] is SERVED else rows)
    ]
    return pytest.mark.parametrize(("store", *names.split()), params)


def leader_first(members: list[Any]) -> list[Any]:
    """The members of a store, the leader first. Waits until there is one."""
    deadline = time.monotonic() + _ELECTION_TIMEOUT
    while True:
        leads = {id(member): member.is_leader() for member in members}
        if any(leads.values()):
            return sorted(members, key=lambda member: not leads[id(member)])
        assert time.monotonic() < deadline, f"no leader within {_ELECTION_TIMEOUT} s"
        time.sleep(0.05)
