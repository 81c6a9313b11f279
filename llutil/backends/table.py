"""The table of rendezvous backends: what each is called, what it can, and which options it has.

All else reads it: the checks of a ``LaunchConfig``, torchrun's entry points, ledgers, connections,
their forms, ``[elastic_launch]`` in Airflow's configuration, and the tables in README.md and docs/.
A new option is a row here and a field of what takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from llutil.backends.backend import Backend
from llutil.backends.options import Kind, Option, Source

__all__ = [
    "BACKENDS",
    "C10D",
    "DEFAULT",
    "DEPLOYMENT_OPTIONS",
    "ETCD",
    "STATIC",
    "ZEUS_ADAPTER",
    "backend_named",
    "backend_of_connection",
]

_TIMEOUT = Option(
    key="timeout",
    kind=Kind.SECONDS,
    default=900.0,
    label="Timeout",
    text="seconds until a round that does not form is given up",
    of_deployment=True,
)
_LAST_CALL = Option(
    key="last_call_timeout",
    kind=Kind.SECONDS_FROM_ZERO,
    default=30.0,
    label="Last call",
    text="seconds that `min_nodes` wait for more",
    of_deployment=True,
)
_OF_A_LEDGER = (
    _TIMEOUT,
    _LAST_CALL,
    Option(
        key="lease_ttl",
        kind=Kind.SECONDS,
        default=10.0,
        label="Lease",
        text="seconds that a node outlives its last sign of life",
        of_deployment=True,
    ),
)
_OF_A_STORE = (
    *_OF_A_LEDGER,
    Option(
        key="namespace",
        kind=Kind.TEXT,
        default="llutil",
        label="Namespace",
        text="the folder of the store that a deployment has for itself; "
        "deployments that share a store need one each",
        of_deployment=True,
    ),
    Option(
        key="user",
        kind=Kind.TEXT,
        text="who this deployment is to the store",
        source=Source.LOGIN,
    ),
    Option(
        key="password",
        kind=Kind.TEXT,
        text="the user's password",
        secret=True,
        source=Source.PASSWORD,
    ),
    Option(
        key="cacert",
        kind=Kind.TEXT,
        label="CA file",
        text="PEM file on the workers; TLS is used if and only if it is given",
    ),
    Option(
        key="cert",
        kind=Kind.TEXT,
        label="Certificate file",
        text="PEM file on the workers, if the servers want to know clients",
    ),
    Option(
        key="key",
        kind=Kind.TEXT,
        label="Key file",
        text="PEM file on the workers, unencrypted, of the certificate",
    ),
)

ETCD: Final = Backend(
    name="etcd",
    title="etcd (v3 API)",
    has_ledger=True,
    torchrun_name="etcd-v3",
    connection_type="etcd",
    several_servers=True,
    default_port=2379,
    options=(
        *_OF_A_STORE,
        Option(
            key="server_name",
            kind=Kind.TEXT,
            label="Server name",
            text="the name in etcd's certificate, if it is another one than in the endpoint",
        ),
    ),
)
ZEUS_ADAPTER: Final = Backend(
    name="zeus-adapter",
    title="ZooKeeper",
    has_ledger=True,
    torchrun_name="zeus-adapter",
    connection_type="zookeeper",
    several_servers=True,
    default_port=2181,
    options=(
        *_OF_A_STORE,
        Option(
            key="sasl_mechanism",
            kind=Kind.TEXT,
            label="SASL mechanism",
            text="`DIGEST-MD5`, if user and password are SASL's; else they are a digest",
        ),
    ),
    chroot=Option(
        key="chroot",
        kind=Kind.TEXT,
        label="Chroot",
        text="the node below which everything happens; it has to exist",
    ),
)
C10D: Final = Backend(
    name="c10d",
    title="torch's store, at one of the nodes",
    torchrun_name="c10d",
    lowest_port=0,
    options=(
        _TIMEOUT,
        _LAST_CALL,
        Option(
            key="join_timeout",
            kind=Kind.SECONDS,
            text="torch's own name for `timeout`, which is taken if this is not given",
        ),
        Option(
            key="close_timeout",
            kind=Kind.SECONDS,
            text="seconds that closing the rendezvous may take",
        ),
        Option(
            key="heartbeat_timeout",
            kind=Kind.SECONDS,
            text="seconds that a sign of life may take",
        ),
        Option(
            key="keep_alive_interval",
            kind=Kind.SECONDS,
            text="seconds between two signs of life",
        ),
        Option(
            key="keep_alive_max_attempt",
            kind=Kind.COUNT,
            text="how many of these may be missing before a node is taken for lost",
        ),
        Option(
            key="is_host",
            kind=Kind.FLAG,
            text="whether this node has the store; if not given, torch compares addresses",
        ),
        Option(
            key="read_timeout",
            kind=Kind.SECONDS,
            text="seconds that a request to the store may take",
        ),
        Option(
            key="store_type",
            kind=Kind.TEXT,
            text="`tcp` or `file`",
        ),
        Option(
            key="door",
            kind=Kind.TEXT,
            text="set by a gang without a store: the secret of the node that has its store",
            secret=True,
        ),
    ),
)
STATIC: Final = Backend(
    name="static",
    title="torch's static rendezvous, at the node of rank 0",
    torchrun_name="static",
    options=(
        _TIMEOUT,
        Option(
            key="rank",
            kind=Kind.COUNT,
            text="this node's number, below `max_nodes`; required",
        ),
    ),
)

BACKENDS: Final[Mapping[str, Backend]] = MappingProxyType(
    {backend.name: backend for backend in (ETCD, ZEUS_ADAPTER, C10D, STATIC)}
)
"""Every backend, by name."""

DEFAULT: Final = ETCD
"""The backend of a configuration that names none."""

DEPLOYMENT_OPTIONS: Final[Mapping[str, Option]] = MappingProxyType(
    {
        option.key: option
        for backend in BACKENDS.values()
        for option in backend.options
        if option.of_deployment
    }
)
"""What Airflow's configuration may say for all jobs of a deployment, by key."""


def backend_named(name: object) -> Backend | None:
    """The backend of this name; None if there is none, whatever ``name`` is."""
    return BACKENDS.get(name) if isinstance(name, str) else None


def backend_of_connection(connection_type: str) -> Backend | None:
    """The backend that a connection of this type leads to; None if there is none."""
    for backend in BACKENDS.values():
        if connection_type and backend.connection_type == connection_type:
            return backend
    return None
