"""Everything about a ``LaunchConfig`` that can be known to be wrong before anything runs.

One function a field or group of fields, each giving problems as sentences: what was wanted, what
was found, what to do. They are collected, not raised, so that a user mends all of them at once.
This module may import nothing but the standard library and ``llutil.std``: a DAG that is parsed
runs it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from llutil.std import Std

if TYPE_CHECKING:
    from llutil.launcher.launch_agent import LaunchConfig

__all__ = ["BACKENDS", "START_METHODS", "problems_of", "run_id_problems"]

START_METHODS = ("spawn", "fork", "forkserver")

_TLS_KEYS = {"cacert", "cert", "key"}
_LEDGER_KEYS = {
    "timeout",
    "last_call_timeout",
    "lease_ttl",
    "user",
    "password",
    "namespace",
} | _TLS_KEYS

BACKENDS: Mapping[str, frozenset[str]] = {
    "etcd": frozenset({*_LEDGER_KEYS, "server_name"}),
    "zeus-adapter": frozenset({*_LEDGER_KEYS, "sasl_mechanism"}),
    "c10d": frozenset(
        {
            "timeout",
            "join_timeout",
            "last_call_timeout",
            "close_timeout",
            "heartbeat_timeout",
            "keep_alive_interval",
            "keep_alive_max_attempt",
            "is_host",
            "door",
            "read_timeout",
            "store_type",
        }
    ),
    "static": frozenset({"timeout", "rank"}),
}
"""The backends, and the keys of ``rdzv_configs`` that each reads (torch's own: as of torch 2.13).

``door`` of c10d is ours: with it the node that ``is_host`` hosts the store at its own address, and
the endpoint of the others is its door; see ``llutil.rendezvous.hosted.node_store``.
"""

_DURATIONS = {
    "timeout",
    "last_call_timeout",
    "lease_ttl",
    "join_timeout",
    "close_timeout",
    "read_timeout",
}
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~:+-]*")
_LONGEST_RUN_ID = 200
_HANDLER = re.compile(r"null|console|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:,/\[\]]+):(\d{1,5})")


def problems_of(config: LaunchConfig) -> list[str]:
    """Every problem of ``config``, each a sentence; empty if nothing is known to be wrong."""
    return [
        *_nodes(config),
        *_workers(config),
        *_backend(config),
        *_static(config),
        *_endpoint(config),
        *run_id_problems(config.run_id),
        *_numbers(config),
        *_texts(config),
        *_streams("redirects", config.redirects),
        *_streams("tee", config.tee),
        *_shown(config.local_ranks_filter),
        *_metrics(config.metrics_cfg),
    ]


# Where a field's type is itself in question, ``config`` is given as ``Any``: mypy would take the
# checks for needless.


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return math.isfinite(value)


def _nodes(config: LaunchConfig) -> Iterator[str]:
    low, high = config.min_nodes, config.max_nodes
    if not (_is_count(low) and _is_count(high)):
        yield f"min_nodes and max_nodes are {low!r} and {high!r}; wanted two whole numbers"
    elif low < 1:
        yield f"min_nodes is {low}; wanted at least 1"
    elif high < low:
        yield f"max_nodes is {high}, below min_nodes, which is {low}; wanted min_nodes <= max_nodes"


def _workers(config: LaunchConfig) -> Iterator[str]:
    wanted = config.nproc_per_node
    if isinstance(wanted, str):
        if wanted not in {"auto", "cpu", "gpu"}:
            yield f"nproc_per_node is {wanted!r}; wanted a number, 'cpu', 'gpu' or 'auto'"
    elif not _is_count(wanted) or not 1 <= wanted <= 256:
        yield f"nproc_per_node is {wanted!r}; wanted 1 to 256 workers a node"
    if config.start_method not in START_METHODS:
        yield f"start_method is {config.start_method!r}; wanted one of {', '.join(START_METHODS)}"


def _backend(config: Any) -> Iterator[str]:
    if config.rdzv_timeout != -1 and (
        not _is_number(config.rdzv_timeout) or config.rdzv_timeout <= 0
    ):
        yield f"rdzv_timeout is {config.rdzv_timeout!r}; wanted a positive number of seconds, or -1 for none"
    backend = config.rdzv_backend
    known = BACKENDS.get(backend) if isinstance(backend, str) else None
    if known is None:
        yield f"rdzv_backend is {backend!r}; wanted one of {', '.join(sorted(BACKENDS))}"
    if not isinstance(config.rdzv_configs, Mapping):
        yield f"rdzv_configs is a {type(config.rdzv_configs).__name__}; wanted a dict"
        return
    unknown = sorted(set(map(str, config.rdzv_configs)) - known) if known else []
    if known and unknown:
        yield (
            f"rdzv_configs has {', '.join(map(repr, unknown))}, which backend {backend!r} does not know; "
            f"it knows {', '.join(sorted(known))}"
        )
    for key in sorted(_DURATIONS & set(config.rdzv_configs)):
        value = config.rdzv_configs[key]
        if not _is_number(value) or value <= 0:
            yield f"rdzv_configs[{key!r}] is {value!r}; wanted a positive number of seconds"


def _static(config: Any) -> Iterator[str]:
    """torch's static rendezvous is given what others find out: who is who, and how many there
    are.
    """
    low, high, configs = config.min_nodes, config.max_nodes, config.rdzv_configs
    if config.rdzv_backend != "static" or not config.rdzv_endpoint:
        return
    if not (isinstance(configs, Mapping) and _is_count(low) and _is_count(high)):
        return  # which has been said already
    if low != high:
        yield f"rdzv_backend 'static' waits for max_nodes, which is {high}; wanted min_nodes the same, not {low}"
    if "rank" not in configs:
        yield "rdzv_backend 'static' needs this node's rank: give rdzv_configs={'rank': n}"
    elif not _is_count(configs["rank"]) or not 0 <= configs["rank"] < high:
        yield f"rdzv_configs['rank'] is {configs['rank']!r}; wanted this node's number, 0 to {high - 1}"


def _endpoint(config: LaunchConfig) -> Iterator[str]:
    endpoint = config.rdzv_endpoint
    if not isinstance(endpoint, str):
        yield f"rdzv_endpoint is {endpoint!r}; wanted 'host:port'"
    elif not endpoint:
        if _is_count(config.max_nodes) and config.max_nodes > 1:
            yield (
                f"rdzv_endpoint is empty, but up to {config.max_nodes} nodes must find each other; "
                "give 'host:port' of a server that all of them reach"
            )
    else:
        servers = (
            endpoint.removesuffix("/").split(",") if config.rdzv_backend == "etcd" else [endpoint]
        )
        if config.rdzv_backend == "zeus-adapter":
            servers = endpoint.split("/", 1)[0].split(",")
        lowest = (
            0 if config.rdzv_backend == "c10d" else 1
        )  # torch hosts its store on any port, for one node
        for server in servers:
            match = _ENDPOINT.fullmatch(server.strip())
            if match is None:
                yield f"rdzv_endpoint has {server!r}; wanted 'host:port' (an IPv6 address in brackets)"
            elif not lowest <= int(match[2]) <= 65535:
                yield f"rdzv_endpoint has port {match[2]}; wanted {lowest} to 65535"


def run_id_problems(run_id: object, name: str = "run_id") -> Iterator[str]:
    """What is wrong with a run id, which ``name`` says where it was given; nothing if it is
    empty.
    """
    if not isinstance(run_id, str):
        yield f"{name} is {run_id!r}; wanted a string"
    elif run_id and (len(run_id) > _LONGEST_RUN_ID or not _RUN_ID.fullmatch(run_id)):
        yield (
            f"{name} is {run_id[:80]!r}; wanted at most {_LONGEST_RUN_ID} letters, digits and _ . ~ : + - "
            "(it becomes a folder's name and a key)"
        )


def _numbers(config: LaunchConfig) -> Iterator[str]:
    if not _is_count(config.max_restarts) or config.max_restarts < 0:
        yield f"max_restarts is {config.max_restarts!r}; wanted 0 or more"
    if not _is_number(config.monitor_interval) or config.monitor_interval <= 0:
        yield f"monitor_interval is {config.monitor_interval!r}; wanted a positive number of seconds"
    if not _is_number(config.shutdown_timeout) or config.shutdown_timeout < 0:
        yield f"shutdown_timeout is {config.shutdown_timeout!r}; wanted 0 or more seconds"


def _texts(config: Any) -> Iterator[str]:
    if not isinstance(config.role, str) or not config.role:
        yield f"role is {config.role!r}; wanted a name"
    if config.log_dir is not None and (
        not isinstance(config.log_dir, str | os.PathLike) or not os.fspath(config.log_dir)
    ):
        yield f"log_dir is {config.log_dir!r}; wanted a folder's path, or None for a temporary one"
    if config.local_addr is not None and (
        not isinstance(config.local_addr, str) or not config.local_addr
    ):
        yield f"local_addr is {config.local_addr!r}; wanted an address, or None to find it out"
    if not isinstance(config.event_log_handler, str) or not config.event_log_handler:
        yield f"event_log_handler is {config.event_log_handler!r}; wanted a name, such as 'null' or 'console'"
    if not isinstance(config.rerun_token, str):
        yield f"rerun_token is {config.rerun_token!r}; wanted a string"
    if not isinstance(config.node_label, str):
        yield f"node_label is {config.node_label!r}; wanted a string"
    if config.node_index is not None and (
        not _is_count(config.node_index) or config.node_index < 0
    ):
        yield f"node_index is {config.node_index!r}; wanted 0 or more, or None for no preference"


def _streams(name: str, option: Any) -> Iterator[str]:
    values = list(option.values()) if isinstance(option, Mapping) else [option]
    ranks = list(option) if isinstance(option, Mapping) else []
    for value in values:
        if not _is_count(value) or not 0 <= value <= Std.ALL:
            yield f"{name} has {value!r}; wanted a Std, or a dict of local rank to Std"
            return
    for rank in ranks:
        if not _is_count(rank) or rank < 0:
            yield f"{name} has the key {rank!r}; wanted local ranks: 0, 1, ..."
            return


def _shown(ranks: Any) -> Iterator[str]:
    if ranks is None:
        return
    if isinstance(ranks, str | Mapping) or not isinstance(ranks, Collection):
        yield f"local_ranks_filter is {ranks!r}; wanted a set of local ranks, or None for all"
    elif not all(_is_count(rank) and rank >= 0 for rank in ranks):
        yield f"local_ranks_filter is {ranks!r}; wanted local ranks: 0, 1, ..."


def _metrics(metrics: Any) -> Iterator[str]:
    if not isinstance(metrics, Mapping) or not all(
        isinstance(part, str) for item in metrics.items() for part in item
    ):
        yield f"metrics_cfg is {metrics!r}; wanted a dict of a metrics group to 'null', 'console' or 'module:Class'"
        return
    for group, handler in metrics.items():
        if not _HANDLER.fullmatch(handler):
            yield f"metrics_cfg[{group!r}] is {handler!r}; wanted 'null', 'console' or 'module:Class'"
