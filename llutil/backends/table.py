"""The table of rendezvous backends: what each is called, what it can, and which options it has.

All else reads it: the checks of a ``LaunchConfig``, torchrun's entry points, ledgers, connections,
their forms, ``[elastic_launch]`` in Airflow's configuration, and the tables in docs/reference/.
A new option is a row here and a field of what takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from llutil.backends.backend import Backend
from llutil.backends.options import Kind, Option, Source
from llutil.secret import concealed

__all__ = [
    "BACKENDS",
    "C10D",
    "DEFAULT",
    "DEPLOYMENT_OPTIONS",
    "ETCD",
    "SERVED",
    "STATIC",
    "ZEUS_ADAPTER",
    "backend_named",
    "backend_of_connection",
    "backend_of_torchrun",
    "conceal_options",
]

_TIMEOUT = Option(
    "timeout",
    Kind.SECONDS,
    "seconds until a round that does not form is given up",
    default=900.0,
    label="Timeout",
    of_deployment=True,
)
_LAST_CALL = Option(
    "last_call_timeout",
    Kind.SECONDS_FROM_ZERO,
    "seconds that `min_nodes` wait for more",
    default=30.0,
    label="Last call",
    of_deployment=True,
)
_OF_A_LEDGER = (
    _TIMEOUT,
    _LAST_CALL,
    Option(
        "lease_ttl",
        Kind.SECONDS,
        "seconds that a node outlives its last sign of life",
        default=10.0,
        label="Lease",
        of_deployment=True,
    ),
    Option(
        "growth_timeout",
        Kind.SECONDS,
        "seconds that all ranks may take to save before a new node is let in",
        default=60.0,
        label="Growth",
        of_deployment=True,
    ),
)
_OF_A_STORE = (
    *_OF_A_LEDGER,
    Option(
        "namespace",
        Kind.TEXT,
        "the folder of the store that a deployment has for itself; "
        "deployments that share a store need one each",
        default="llutil",
        label="Namespace",
        of_deployment=True,
    ),
    Option("user", Kind.TEXT, "who this deployment is to the store", source=Source.LOGIN),
    Option("password", Kind.TEXT, "the user's password", secret=True, source=Source.PASSWORD),
    Option(
        "cacert",
        Kind.TEXT,
        "PEM file on the workers with the only authorities that are trusted; "
        "TLS is used if and only if it is given",
        label="CA file",
    ),
    Option(
        "cert",
        Kind.TEXT,
        "PEM file on the workers, if the servers want to know clients",
        label="Certificate file",
    ),
    Option(
        "key",
        Kind.TEXT,
        "PEM file on the workers, unencrypted, of the certificate",
        label="Key file",
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
            "server_name",
            Kind.TEXT,
            "the name in etcd's certificate, if it is another one than in the endpoint",
            label="Server name",
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
            "sasl_mechanism",
            Kind.TEXT,
            "`DIGEST-MD5`, if user and password are SASL's; else they are a digest",
            label="SASL mechanism",
        ),
    ),
    chroot=Option(
        "chroot",
        Kind.TEXT,
        "the node below which everything happens; it has to exist",
        label="Chroot",
    ),
)
SERVED: Final = Backend(
    name="served",
    title="a ledger that one of the nodes serves",
    has_ledger=True,
    torchrun_name="served",
    default_port=29410,
    lowest_port=0,
    options=(
        *_OF_A_LEDGER,
        Option(
            "secret",
            Kind.TEXT,
            "what all nodes of the job know, and nobody else; "
            "without one, whoever reaches the port is heard",
            secret=True,
        ),
        Option(
            "serves",
            Kind.FLAG,
            "whether this node serves the ledger; if not given, the one does whose address the "
            "endpoint has",
        ),
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
            "join_timeout",
            Kind.SECONDS,
            "torch's own name for `timeout`, which is taken if this is not given",
        ),
        Option("close_timeout", Kind.SECONDS, "seconds that closing the rendezvous may take"),
        Option("heartbeat_timeout", Kind.SECONDS, "seconds that a sign of life may take"),
        Option("keep_alive_interval", Kind.SECONDS, "seconds between two signs of life"),
        Option(
            "keep_alive_max_attempt",
            Kind.COUNT,
            "how many of these may be missing before a node is taken for lost",
        ),
        Option(
            "is_host",
            Kind.FLAG,
            "whether this node has the store; if not given, torch compares addresses",
        ),
        Option("read_timeout", Kind.SECONDS, "seconds that a request to the store may take"),
        Option("store_type", Kind.TEXT, "`tcp` or `file`"),
    ),
)
STATIC: Final = Backend(
    name="static",
    title="torch's static rendezvous, at the node of rank 0",
    torchrun_name="static",
    options=(
        _TIMEOUT,
        Option("rank", Kind.COUNT, "this node's number, below `max_nodes`; required"),
    ),
)

BACKENDS: Final[Mapping[str, Backend]] = MappingProxyType(
    {backend.name: backend for backend in (ETCD, ZEUS_ADAPTER, SERVED, C10D, STATIC)}
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

_SHOWN = frozenset(
    option.key
    for backend in BACKENDS.values()
    for option in (*backend.options, *backend.connection_options)
    if not option.secret
)


def conceal_options(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """``given``, whose secrets ``repr`` does not show. What no backend knows may be one, too.

    It is the same object if there is nothing to conceal.
    """
    hidden = {key: concealed(value) for key, value in given.items() if key not in _SHOWN}
    if all(hidden[key] is given[key] for key in hidden):
        return given
    return {**given, **hidden}


def backend_named(name: object) -> Backend | None:
    """The backend of this name; None if there is none, whatever ``name`` is."""
    return BACKENDS.get(name) if isinstance(name, str) else None


def backend_of_connection(connection_type: str) -> Backend | None:
    """The backend that a connection of this type leads to; None if there is none."""
    for backend in BACKENDS.values():
        if connection_type and backend.connection_type == connection_type:
            return backend
    return None


def backend_of_torchrun(name: str) -> Backend | None:
    """The backend that torchrun calls so, or that has this name; None if there is none."""
    by_name = {backend.torchrun_name: backend for backend in BACKENDS.values()} | dict(BACKENDS)
    return by_name.get(name)
