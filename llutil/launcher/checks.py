"""Everything about a ``LaunchConfig`` that can be known to be wrong before anything runs.

One function a field or group of fields, each giving problems as sentences: what was wanted, what was found,
what to do. They are collected, not raised, so that a user mends all of them at once. This module may import
nothing but the standard library and ``llutil.std``: a DAG that is parsed runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from llutil.std import Std

if TYPE_CHECKING:
    from llutil.launcher.launch_agent import LaunchConfig

__all__ = ["BACKENDS", "START_METHODS", "problems_of"]

START_METHODS = ("spawn", "fork", "forkserver")

_TLS_KEYS = {"cacert", "cert", "key"}
_LEDGER_KEYS = {
    "timeout",
    "last_call_timeout",
    "lease_ttl",
    "user",
    "password",
    "namespace",
    "server_name",
} | _TLS_KEYS

BACKENDS: Mapping[str, frozenset[str]] = {
    "etcd": frozenset(_LEDGER_KEYS),
    "zeus-adapter": frozenset(_LEDGER_KEYS),
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
            "read_timeout",
            "store_type",
        }
    ),
    "static": frozenset({"timeout", "rank"}),
}
"""The backends, and the keys of ``rdzv_configs`` that each reads (torch's own: as of torch 2.13)."""

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
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:,/\[\]]+):(\d{1,5})")


def problems_of(config: LaunchConfig) -> list[str]:
    """Every problem of ``config``, each a sentence; empty if nothing is known to be wrong."""
    return [
        *_nodes(config),
        *_workers(config),
        *_backend(config),
        *_endpoint(config),
        *_run_id(config.run_id),
        *_numbers(config),
        *_streams("redirects", config.redirects),
        *_streams("tee", config.tee),
        *_metrics(config.metrics_cfg),
    ]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


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


def _backend(config: LaunchConfig) -> Iterator[str]:
    known = BACKENDS.get(config.rdzv_backend)
    if known is None:
        yield f"rdzv_backend is {config.rdzv_backend!r}; wanted one of {', '.join(sorted(BACKENDS))}"
        return
    if not isinstance(config.rdzv_configs, Mapping):
        yield f"rdzv_configs is a {type(config.rdzv_configs).__name__}; wanted a dict"
        return
    unknown = sorted(set(map(str, config.rdzv_configs)) - known)
    if unknown:
        yield (
            f"rdzv_configs has {', '.join(map(repr, unknown))}, which backend {config.rdzv_backend!r} does not know; "
            f"it knows {', '.join(sorted(known))}"
        )
    for key in sorted(_DURATIONS & set(config.rdzv_configs)):
        value = config.rdzv_configs[key]
        if not _is_number(value) or value <= 0:
            yield f"rdzv_configs[{key!r}] is {value!r}; wanted a positive number of seconds"
    if config.rdzv_timeout != -1 and (
        not _is_number(config.rdzv_timeout) or config.rdzv_timeout <= 0
    ):
        yield f"rdzv_timeout is {config.rdzv_timeout!r}; wanted a positive number of seconds, or -1 for none"
    if (
        config.rdzv_backend == "static"
        and "rank" not in config.rdzv_configs
        and config.rdzv_endpoint
    ):
        yield "rdzv_backend 'static' needs this node's rank: give rdzv_configs={'rank': n}"


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
        for server in servers:
            match = _ENDPOINT.fullmatch(server.strip())
            if match is None:
                yield f"rdzv_endpoint has {server!r}; wanted 'host:port' (an IPv6 address in brackets)"
            elif not 0 <= int(match[2]) <= 65535:
                yield f"rdzv_endpoint has port {match[2]}; wanted at most 65535"


def _run_id(run_id: object) -> Iterator[str]:
    if not isinstance(run_id, str):
        yield f"run_id is {run_id!r}; wanted a string"
    elif run_id and (len(run_id) > _LONGEST_RUN_ID or not _RUN_ID.fullmatch(run_id)):
        yield (
            f"run_id is {run_id[:80]!r}; wanted at most {_LONGEST_RUN_ID} letters, digits and _ . ~ : + - "
            "(it becomes a folder's name and a key)"
        )


def _numbers(config: LaunchConfig) -> Iterator[str]:
    if not _is_count(config.max_restarts) or config.max_restarts < 0:
        yield f"max_restarts is {config.max_restarts!r}; wanted 0 or more"
    if not _is_number(config.monitor_interval) or config.monitor_interval <= 0:
        yield f"monitor_interval is {config.monitor_interval!r}; wanted a positive number of seconds"
    if not _is_number(config.shutdown_timeout) or config.shutdown_timeout < 0:
        yield f"shutdown_timeout is {config.shutdown_timeout!r}; wanted 0 or more seconds"


def _streams(name: str, option: Any) -> Iterator[str]:
    values = list(option.values()) if isinstance(option, Mapping) else [option]
    ranks = list(option) if isinstance(option, Mapping) else []
    for value in values:
        if not isinstance(value, int) or not 0 <= int(value) <= Std.ALL:
            yield f"{name} has {value!r}; wanted a Std, or a dict of local rank to Std"
            return
    for rank in ranks:
        if not _is_count(rank) or rank < 0:
            yield f"{name} has the key {rank!r}; wanted local ranks: 0, 1, ..."
            return


def _metrics(metrics: Any) -> Iterator[str]:
    if not isinstance(metrics, Mapping) or not all(
        isinstance(part, str) for item in metrics.items() for part in item
    ):
        yield f"metrics_cfg is {metrics!r}; wanted a dict of strings, as torch's MetricsConfig takes"
