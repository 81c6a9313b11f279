"""Finds everything that is wrong with a ``LaunchConfig`` before anything runs.

There is one function for each field or group of fields. It yields a ``Problem`` for each thing that
is wrong. They are collected, so that a user can correct all of them at once. This module may import
only the standard library, ``llutil.backends``, ``llutil.errors``, ``llutil.job_name``,
``llutil.launcher.config`` and the checks beside it, ``llutil.launcher.numa_options`` and
``llutil.system``: parsing a DAG runs it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

from llutil.backends.table import BACKENDS, DEFAULT, STATIC, backend_named
from llutil.errors import ConfigError, Problem
from llutil.job_name import LONGEST_ID, is_id
from llutil.launcher.chaos_checks import chaos_problems
from llutil.launcher.checkpoint_checks import checkpoint_problems
from llutil.launcher.config import LaunchConfig
from llutil.launcher.numa_options import AFFINITY_MODES, NumaOptions
from llutil.launcher.output_checks import MOST_WORKERS, is_count, output_problems
from llutil.system.signal_names import signals_named

__all__ = ["START_METHODS", "problems_of", "run_id_problems"]

START_METHODS = ("spawn", "fork", "forkserver")

_COUNTED = ("cpu", "gpu", "xpu", "auto")
_DEVICE = re.compile(r"[a-z][a-z0-9_]{0,30}")
_HANDLER = re.compile(r"null|console|[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def problems_of(config: LaunchConfig) -> list[Problem]:
    """Every problem of ``config``; empty if none was found."""
    return [
        *_nodes(config),
        *_workers(config),
        *_backend(config),
        *_static(config),
        *_endpoint(config),
        *run_id_problems(config.run_id),
        *_numbers(config),
        *_hang_timeout(config.hang_timeout),
        *_texts(config),
        *_signals(config.signals_to_handle),
        *_binding(config),
        *output_problems(config),
        *_metrics(config.metrics_cfg),
        *checkpoint_problems(config),
        *chaos_problems(config),
    ]


# A function that checks the type of a field takes ``config`` as ``Any``. With the declared type,
# mypy would report the check as unreachable code.


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return math.isfinite(value)


def _nodes(config: LaunchConfig) -> Iterator[Problem]:
    low, high = config.min_nodes, config.max_nodes
    if not (is_count(low) and is_count(high)):
        text = f"and max_nodes are {low!r} and {high!r}; wanted two whole numbers"
        yield Problem("min_nodes", text, ("max_nodes",))
    elif low < 1:
        yield Problem("min_nodes", f"is {low}; wanted at least 1")
    elif high < low:
        text = f"is {high}, below min_nodes, which is {low}; wanted min_nodes <= max_nodes"
        yield Problem("max_nodes", text, ("min_nodes",))


def _workers(config: LaunchConfig) -> Iterator[Problem]:
    wanted = config.nproc_per_node
    if isinstance(wanted, str):
        # Which names plugins have given torch is known only on the node, see ``device_count``.
        misspelt = wanted not in _COUNTED and any(name in wanted for name in _COUNTED)
        if misspelt or not _DEVICE.fullmatch(wanted):
            text = f"is {wanted!r}; wanted a number, {', '.join(map(repr, _COUNTED))}"
            yield Problem("nproc_per_node", text)
    elif not is_count(wanted) or not 1 <= wanted <= MOST_WORKERS:
        text = f"is {wanted!r}; wanted 1 to {MOST_WORKERS} workers a node"
        yield Problem("nproc_per_node", text)
    if config.start_method not in START_METHODS:
        text = f"is {config.start_method!r}; wanted one of {', '.join(START_METHODS)}"
        yield Problem("start_method", text)


def _backend(config: Any) -> Iterator[Problem]:
    if config.rdzv_timeout != -1 and (
        not _is_number(config.rdzv_timeout) or config.rdzv_timeout <= 0
    ):
        text = f"is {config.rdzv_timeout!r}; wanted a positive number of seconds, or -1 for none"
        yield Problem("rdzv_timeout", text)
    backend = backend_named(config.rdzv_backend)
    if backend is None:
        text = f"is {config.rdzv_backend!r}; wanted one of {', '.join(sorted(BACKENDS))}"
        yield Problem("rdzv_backend", text)
    if not isinstance(config.rdzv_configs, Mapping):
        yield Problem("rdzv_configs", f"is a {type(config.rdzv_configs).__name__}; wanted a dict")
    elif backend is not None:
        _, problems = backend.read(config.rdzv_configs, "rdzv_configs")
        for problem in problems:
            yield replace(problem, others=("rdzv_backend",))


def _static(config: Any) -> Iterator[Problem]:
    """torch's static rendezvous needs each node's rank and the exact number of nodes; the other
    backends find both out.
    """
    low, high, configs = config.min_nodes, config.max_nodes, config.rdzv_configs
    if config.rdzv_backend != STATIC.name or not config.rdzv_endpoint:
        return
    if not (isinstance(configs, Mapping) and is_count(low) and is_count(high)):
        return  # another check has reported it
    others = ("rdzv_backend", "rdzv_endpoint", "max_nodes")
    if low != high:
        text = (
            f"is {high} and min_nodes is {low}; backend 'static' waits for all nodes, so "
            "min_nodes must be equal to max_nodes"
        )
        yield Problem("max_nodes", text, ("rdzv_backend", "rdzv_endpoint", "min_nodes"))
    rank = STATIC.read(configs, "rdzv_configs")[0].get("rank")
    if rank is None and not configs.get("rank"):
        text = (
            "has no 'rank', which backend 'static' needs; give this node's number as "
            "rdzv_configs={'rank': n}"
        )
        yield Problem("rdzv_configs", text, others)
    elif rank is not None and not rank < high:
        text = f"has 'rank': {rank!r}; wanted this node's number, 0 to {high - 1}"
        yield Problem("rdzv_configs", text, others)


def _endpoint(config: LaunchConfig) -> Iterator[Problem]:
    endpoint = config.rdzv_endpoint
    if not isinstance(endpoint, str):
        yield Problem("rdzv_endpoint", f"is {endpoint!r}; wanted 'host:port'")
    elif not endpoint:
        if is_count(config.max_nodes) and config.max_nodes > 1:
            text = (
                f"is empty, but up to {config.max_nodes} nodes must find each other; "
                "give 'host:port' of a server that all of them can reach"
            )
            yield Problem("rdzv_endpoint", text, ("max_nodes",))
    else:
        try:
            (backend_named(config.rdzv_backend) or DEFAULT).endpoints(endpoint, "rdzv_endpoint")
        except ConfigError as error:
            for problem in error.problems:
                yield replace(problem, others=("rdzv_backend",))


def run_id_problems(run_id: object, name: str = "run_id") -> Iterator[Problem]:
    """What is wrong with a run id; an empty one has no problem. ``name`` says where it was
    given.
    """
    if not isinstance(run_id, str):
        yield Problem(name, f"is {run_id!r}; wanted a string")
    elif run_id and not is_id(run_id):
        text = (
            f"is {run_id[:80]!r}; wanted at most {LONGEST_ID} letters, digits and _ . ~ : + - "
            "(it becomes a folder's name and a key)"
        )
        yield Problem(name, text)


def _numbers(config: LaunchConfig) -> Iterator[Problem]:
    if not is_count(config.max_restarts) or config.max_restarts < 0:
        yield Problem("max_restarts", f"is {config.max_restarts!r}; wanted 0 or more")
    if not _is_number(config.monitor_interval) or config.monitor_interval <= 0:
        text = f"is {config.monitor_interval!r}; wanted a positive number of seconds"
        yield Problem("monitor_interval", text)
    if not _is_number(config.shutdown_timeout) or config.shutdown_timeout < 0:
        text = f"is {config.shutdown_timeout!r}; wanted 0 or more seconds"
        yield Problem("shutdown_timeout", text)
    if not _is_number(config.restart_grace) or config.restart_grace < 0:
        text = f"is {config.restart_grace!r}; wanted 0 or more seconds"
        yield Problem("restart_grace", text)
    if not _is_number(config.exit_timeout) or config.exit_timeout <= 0:
        text = f"is {config.exit_timeout!r}; wanted a positive number of seconds"
        yield Problem("exit_timeout", text)


def _hang_timeout(timeout: Any) -> Iterator[Problem]:
    if timeout is None or (isinstance(timeout, str) and timeout == "auto"):
        return
    if not _is_number(timeout) or timeout <= 0:
        text = f"is {timeout!r}; wanted a positive number of seconds, 'auto', or None for no watch"
        yield Problem("hang_timeout", text)


def _signals(names: Any) -> Iterator[Problem]:
    if not isinstance(names, str):
        text = f"is {names!r}; wanted names of signals with commas, such as 'SIGTERM,SIGUSR1'"
        yield Problem("signals_to_handle", text)
        return
    try:
        signals_named(names)
    except ValueError as error:
        yield Problem("signals_to_handle", f"{error}; wanted names such as 'SIGTERM,SIGUSR1'")


def _binding(config: Any) -> Iterator[Problem]:
    if not isinstance(config.virtual_local_rank, bool):
        yield Problem(
            "virtual_local_rank", f"is {config.virtual_local_rank!r}; wanted True or False"
        )
    options = config.numa_options
    modes = ", ".join(map(repr, AFFINITY_MODES))
    if options is not None and not isinstance(options, NumaOptions):
        yield Problem("numa_options", f"is {options!r}; wanted one of {modes}, or a NumaOptions")
    elif options is not None and options.affinity_mode not in AFFINITY_MODES:
        yield Problem("numa_options", f"is {options!r}; wanted one of the modes {modes}")


def _texts(config: Any) -> Iterator[Problem]:
    if not isinstance(config.role, str) or not config.role:
        yield Problem("role", f"is {config.role!r}; wanted a name")
    if config.log_dir is not None and (
        not isinstance(config.log_dir, str | os.PathLike) or not os.fspath(config.log_dir)
    ):
        text = f"is {config.log_dir!r}; wanted a folder's path, or None for a temporary one"
        yield Problem("log_dir", text)
    if config.local_addr is not None and (
        not isinstance(config.local_addr, str) or not config.local_addr
    ):
        text = f"is {config.local_addr!r}; wanted an address, or None to find it out"
        yield Problem("local_addr", text)
    if not isinstance(config.event_log_handler, str) or not config.event_log_handler:
        text = f"is {config.event_log_handler!r}; wanted a name, such as 'null' or 'console'"
        yield Problem("event_log_handler", text)
    if not isinstance(config.rerun_token, str):
        yield Problem("rerun_token", f"is {config.rerun_token!r}; wanted a string")
    if not isinstance(config.node_label, str):
        yield Problem("node_label", f"is {config.node_label!r}; wanted a string")
    if config.node_index is not None and (not is_count(config.node_index) or config.node_index < 0):
        text = f"is {config.node_index!r}; wanted 0 or more, or None for no preference"
        yield Problem("node_index", text)


def _metrics(metrics: Any) -> Iterator[Problem]:
    wanted = "'null', 'console' or 'module:Class'"
    if not isinstance(metrics, Mapping) or not all(
        isinstance(part, str) for item in metrics.items() for part in item
    ):
        text = f"is {metrics!r}; wanted a dict of a metrics group to {wanted}"
        yield Problem("metrics_cfg", text)
        return
    for group, handler in metrics.items():
        if not _HANDLER.fullmatch(handler):
            yield Problem("metrics_cfg", f"has {group!r}: {handler!r}; wanted {wanted}")
