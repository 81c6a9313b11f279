"""Checks a gang in a DAG file: one job whose nodes are the instances of one mapped task.

This module has the checks of DAG parsing: a gang's parameters, and where in a DAG it may be. What
its nodes do when they run is in ``airflow_provider.gang.node``. Airflow is imported inside
functions.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_provider.parameters.function_arguments import LIVE_CONTEXT, PLAIN_CONTEXT
from llutil.backends.table import backend_named
from llutil.errors import ConfigError, Problem

__all__ = [
    "NODE_NAMES",
    "check_arguments",
    "check_limits",
    "check_task_group",
    "gang_problems",
    "nnodes_of",
]

NODE_NAMES = "node {{ ti.map_index }}"
"""What the nodes of a gang are called in Airflow's UI, unless ``map_index_template`` is given."""

_MOST_NODES = 1024
"""Airflow's default of ``max_map_length``."""
_SET_BY_GANG = ("nnodes", "node_index")
_TASK_LIMITS = ("max_active_tis_per_dag", "max_active_tis_per_dagrun")


def nnodes_of(nodes: int, min_nodes: int | None) -> str:
    """The parameter ``nnodes`` of a gang; it needs all of its nodes unless ``min_nodes`` says
    otherwise.
    """
    return f"{nodes if min_nodes is None else min_nodes}:{nodes}"


def gang_problems(nodes: Any, min_nodes: Any, given: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a gang of ``nodes``; ``given`` holds its other parameters."""
    problems = [
        Problem(
            name,
            f"is {given[name]!r}, but a gang sets it from its nodes and min_nodes; leave {name} "
            "out",
        )
        for name in _SET_BY_GANG
        if given.get(name) is not None
    ]
    if not _is_count(nodes) or not 1 <= nodes <= _MOST_NODES:
        text = (
            f"the nodes of a gang are {nodes!r}; wanted a number from 1 to {_MOST_NODES} that is "
            "known when the DAG is parsed: Airflow makes a task instance for each"
        )
        return [*problems, Problem("", text)]
    backend = backend_named(given.get("rdzv_backend"))
    torchs = backend is not None and not backend.has_ledger
    if torchs and nodes > 1 and not given.get("rdzv_endpoint"):
        text = (
            f"is {given['rdzv_backend']!r}, which needs an rdzv_endpoint; leave rdzv_backend out: "
            "without a connection, node 0 serves the ledger through which the gang agrees"
        )
        problems.append(Problem("rdzv_backend", text))
    if min_nodes is not None and (not _is_count(min_nodes) or not 1 <= min_nodes <= nodes):
        text = f"is {min_nodes!r}; wanted 1 to {nodes}, the nodes of the gang"
        problems.append(Problem("min_nodes", text))
    return problems


def check_task_group(dag: Any, task_group: Any) -> None:
    """Refuse a gang in a mapped task group. None means the current DAG or group.

    Airflow does not expand a task inside an expanded task group (3.3), and a gang is an expanded
    task.

    :raises ConfigError: the task group, or one around it, is mapped.
    """
    from airflow.sdk.definitions._internal.contextmanager import DagContext, TaskGroupContext

    dag = dag or DagContext.get_current()
    if task_group is None and dag is not None:
        task_group = TaskGroupContext.get_current(dag)
    mapped = None if task_group is None else next(task_group.iter_mapped_task_groups(), None)
    if mapped is not None:
        raise ConfigError(
            f"a gang cannot be in the mapped task group {mapped.group_id!r}: its nodes are mapped "
            "task instances already, and Airflow maps only once; put the gang into a DAG of its "
            "own and trigger that, or write one gang for each case"
        )


def check_limits(nodes: int, min_nodes: int | None, given: Mapping[str, Any]) -> None:
    """Refuse a gang if Airflow's limits never allow ``min_nodes`` at once; warn if they never allow
    all ``nodes``.

    :raises ConfigError: the gang could never form.
    """
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    dag = given.get("dag") or DagContext.get_current()
    defaults = {} if dag is None else {**dag.default_args, **(given.get("default_args") or {})}
    limits = {name: given.get(name, defaults.get(name)) for name in _TASK_LIMITS}
    if dag is not None:
        limits[f"max_active_tasks of DAG {dag.dag_id!r}"] = dag.max_active_tasks
    needed = nodes if min_nodes is None else min_nodes
    problems = []
    for name, limit in limits.items():
        if not _is_count(limit) or limit >= nodes:
            continue
        if limit < needed:
            problems.append(
                f"the gang needs {needed} nodes at once, and {name} lets {limit} run: it could "
                f"never form; raise {name}, or lower min_nodes"
            )
        else:
            warnings.warn(
                f"the gang of {nodes} nodes will never have more than {limit} at once: {name} "
                "lets no more run",
                stacklevel=4,
            )
    if problems:
        raise ConfigError(problems)


def check_arguments(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Refuse arguments that ``function`` does not accept, as an ordinary call in a DAG file does.

    :raises TypeError: they do not fit. Context values of Airflow may be missing.
    """
    signature = inspect.signature(function)
    bound = signature.bind_partial(*args, **kwargs).arguments
    for name, parameter in signature.parameters.items():
        variable = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        needed = parameter.default is parameter.empty and not variable
        if needed and name not in {*bound, *PLAIN_CONTEXT, *LIVE_CONTEXT}:
            raise TypeError(f"missing a required argument: {name!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
