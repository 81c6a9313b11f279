"""Makes a ``LaunchConfig`` and an entrypoint of what ``llutil run`` was given.

It follows torchrun (torch 2.13, ``torch.distributed.run``): its defaults, and what its options mean
together. Where a job is one node, nothing listens: its rendezvous is inside the agent.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from llutil.backends.backend import Backend
from llutil.backends.table import BACKENDS, C10D, STATIC, backend_of_torchrun
from llutil.command_line.own_options import option_of, own_values
from llutil.command_line.rendezvous import configuration_in
from llutil.entrypoint import Command, Module, Script
from llutil.errors import ConfigError, Problem
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.launcher.run_id import is_named_by
from llutil.std import ALL_RANKS, AUTO_RANKS, Std, StdOption

__all__ = ["entrypoint_of", "launch_config_of"]

_NO_ID = "none"
"""torchrun's ``--rdzv-id`` if none is given."""
_MASTER_PORT = 29500
_STREAMS = re.compile(r"[0-3]|\d+:[0-3](,\d+:[0-3])*", re.ASCII)


def launch_config_of(given: argparse.Namespace) -> LaunchConfig:
    """The configuration.

    :raises ConfigError: options are wrong; all problems are listed, by the options' names.
    """
    own, problems = own_values(given)
    values: dict[str, Any] = {
        "role": given.role,
        "max_restarts": given.max_restarts,
        "monitor_interval": given.monitor_interval,
        "start_method": given.start_method,
        "log_dir": given.log_dir,
        "local_addr": given.local_addr,
        "event_log_handler": given.event_log_handler,
        "virtual_local_rank": given.virtual_local_rank,
        "signals_to_handle": given.signals_to_handle,
        "duplicate_stdout_filters": given.duplicate_stdout_filters or None,
        "duplicate_stderr_filters": given.duplicate_stderr_filters or None,
        "numa_options": given.numa_binding,
    }
    if given.shutdown_timeout is not None:
        values["shutdown_timeout"] = given.shutdown_timeout
    low, high = 1, 1
    readers: dict[str, Callable[[], Any]] = {
        "redirects": lambda: _streams(given.redirects),
        "tee": lambda: _streams(given.tee),
        "local_ranks_filter": lambda: _ranks(given.local_ranks_filter),
        "nproc_per_node": lambda: _count(given.nproc_per_node),
    }
    for field, read in readers.items():
        try:
            values[field] = read()
        except ConfigError as error:
            problems.append(Problem(option_of(field), str(error)))
    try:
        low, high = _nodes(given.nnodes)
    except ConfigError as error:
        problems.append(Problem("--nnodes", str(error)))
    problems += _refused(given)
    backend = backend_of_torchrun(given.rdzv_backend)
    if backend is None:
        problems.append(_unknown_backend(given.rdzv_backend))
    else:
        place, more = _rendezvous(given, backend, high)
        values |= place
        problems += more
        if given.standalone:
            low, high, more = _alone(low, high)
            problems += more
    values |= own
    values.setdefault("nproc_per_node", 1)
    config = LaunchConfig(min_nodes=low, max_nodes=high, **values)
    problems += [
        replace(one, field=option_of(one.field) if one.field else "") for one in problems_of(config)
    ]
    if problems:
        raise ConfigError(problems)
    return config


def entrypoint_of(
    given: argparse.Namespace, environ: Mapping[str, str]
) -> Script | Module | Command:
    """What every rank runs. A script runs in the rank's own interpreter, as with ``--run-path``."""
    script, args = given.training_script, tuple(given.training_script_args)
    if given.no_python and not given.run_path:
        return Command(script, args)
    python = environ.get("PYTHON_EXEC")
    if python and python != sys.executable and not given.run_path:
        module = ("-m",) if given.module else ()
        return Command(python, ("-u", *module, script, *args))
    return Module(script, args) if given.module and not given.run_path else Script(script, args)


def _rendezvous(
    given: argparse.Namespace, backend: Backend, nodes: int
) -> tuple[dict[str, Any], list[Problem]]:
    """The fields that say where nodes meet."""
    problems = []
    configs: dict[str, Any] = {}
    try:
        configs = configuration_in(given.rdzv_conf)
        backend.refuse_rest_of_secret(configs)
    except ConfigError as error:
        configs = {}
        problems.append(Problem("--rdzv-conf", str(error)))
    run_id = "" if given.rdzv_id == _NO_ID else given.rdzv_id
    endpoint = given.rdzv_endpoint
    by_master = backend is STATIC and not endpoint
    if given.standalone or (by_master and given.master_port is None and nodes == 1):
        # torchrun starts a store on a free port here; our agent needs none.
        return {
            "run_id": run_id,
            "rdzv_backend": C10D.name,
            "rdzv_endpoint": "",
            "rdzv_configs": configs,
        }, problems
    if backend is STATIC:
        configs["rank"] = given.node_rank
        host = given.master_addr
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        endpoint = endpoint or f"{host}:{given.master_port or _MASTER_PORT}"
    if not run_id and nodes > 1 and not is_named_by(os.environ):
        if backend.has_ledger:
            text = (
                "is missing: it names the job in the store, where nodes of other jobs without one "
                "would meet this one's"
            )
            problems.append(Problem("--rdzv-id", text))
        run_id = _NO_ID
    return {
        "run_id": run_id,
        "rdzv_backend": backend.name,
        "rdzv_endpoint": endpoint,
        "rdzv_configs": configs,
    }, problems


def _alone(low: int, high: int) -> tuple[int, int, list[Problem]]:
    """The numbers of nodes of a standalone job: with torchrun, no second one finds its store."""
    if low > 1:
        text = f"is {low}:{high}, and --standalone is for one node; leave one of them out"
        return 1, 1, [Problem("--nnodes", text)]
    return 1, 1, []


def _refused(given: argparse.Namespace) -> list[Problem]:
    """Options that torchrun has and that are refused, with the reason."""
    problems = []
    if given.logs_specs not in {None, "default"}:
        text = (
            f"is {given.logs_specs!r}: log files are the agent's own here, laid out as torch's "
            "default; --log-dir, --redirects, --tee and the filters say what goes where"
        )
        problems.append(Problem("--logs-specs", text))
    if given.no_python and given.module and not given.run_path:
        text = "and --module exclude each other: a module needs Python"
        problems.append(Problem("--no-python", text))
    return problems


def _unknown_backend(name: str) -> Problem:
    if name == "etcd-v2":
        text = (
            "is 'etcd-v2': torch's etcd backends speak an API that etcd 3.6 no longer has; 'etcd' "
            "speaks etcd's v3 API here"
        )
    else:
        text = (
            f"is {name!r}; wanted one of {', '.join(sorted(BACKENDS))}. A rendezvous that a plugin "
            "has given torchrun cannot carry what this agent needs: give it to torchrun itself"
        )
    return Problem("--rdzv-backend", text)


def _nodes(text: str) -> tuple[int, int]:
    parts = text.split(":")
    if len(parts) not in {1, 2} or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"is {text!r}; wanted a number, or MIN:MAX")
    return int(parts[0]), int(parts[-1])


def _count(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def _streams(text: str) -> StdOption:
    if not _STREAMS.fullmatch(text):
        raise ConfigError(
            f"is {text!r}; wanted 0 (none), 1 (stdout), 2 (stderr) or 3 (both), or such a number "
            "for each local rank, as in 0:3,1:2"
        )
    if ":" not in text:
        return Std(int(text))
    pairs = (pair.split(":") for pair in text.split(","))
    return {int(rank): Std(int(streams)) for rank, streams in pairs}


def _ranks(text: str) -> set[int] | str | None:
    if text in {"", AUTO_RANKS, ALL_RANKS}:
        return text or None
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(f"is {text!r}; wanted local ranks with commas, as in 0,2")
    return set(map(int, text.split(",")))
