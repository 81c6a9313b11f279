"""Checks an operator's parameters, as a user wrote them or as Airflow rendered them.

A parameter may hold a template or an upstream task's output until the task runs. So the same check
is made twice: when the DAG is parsed, on the values that are known then, and when the task runs, on
all values. Each time one error lists all problems. Nothing here touches a file, a network or
Airflow's API.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from airflow_provider.parameters.environment_variables import env_problems
from airflow_provider.parameters.launch_config import is_number, launch_config, least_nodes
from airflow_provider.parameters.link_parameters import link_problems
from airflow_provider.parameters.rendezvous import conn_id_problem
from airflow_provider.parameters.shown_value import kind_of, shown
from llutil.entrypoint import function_problem
from llutil.errors import ConfigError, Problem

__all__ = [
    "OWN_PARAMETERS",
    "TEMPLATED",
    "blank_templates",
    "entrypoint_problems",
    "is_unresolved",
    "problems_so_far",
    "task_problems",
    "unresolved_texts",
]

OWN_PARAMETERS = (
    "rdzv_conn_id",
    "gang_timeout",
    "env",
    "cwd",
    "python",
    "result_limit",
    "results_path",
    "results_threshold",
    "results_format",
    "links",
    "retry_policy",
    "launch_retry",
    "multiple_outputs",
)
"""The parameters that are checked here, beside those of ``launch_config``."""

TEMPLATED = (
    "entrypoint",
    "op_args",
    "op_kwargs",
    "nnodes",
    "nproc_per_node",
    "rdzv_id",
    "role",
    "rdzv_endpoint",
    "rdzv_conn_id",
    "rdzv_backend",
    "rdzv_configs",
    "max_restarts",
    "start_method",
    "log_dir",
    "local_addr",
    "rerun_token",
    "node_index",
    "node_label",
    "env",
    "cwd",
    "python",
    "checkpoint_path",
    "checkpoint_job",
    "checkpoint_every",
    "checkpoint_keep",
    "resume",
    "chaos",
    "results_path",
    "links",
    "launch",
)
"""The parameters that may be templates; and ``launch``, which shows what they have come to."""


def is_unresolved(value: Any) -> bool:
    """Whether ``value`` is known only when the task runs: it is a template or an ``XComArg``, or
    holds one.
    """
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return any(map(is_unresolved, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(is_unresolved, value))
    if _is_object_path(value):
        return is_unresolved(str(value))  # Airflow renders it
    return _is_reference(value)


def unresolved_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The templates and upstream tasks' outputs among ``values``, by name, in words that go on in
    ``blank_templates``. Values that only hold one are left out: they are not nothing.
    """
    texts = {}
    for name, value in values.items():
        if isinstance(value, str) and is_unresolved(value):
            texts[name] = f"is {value!r}, which rendered to nothing"
        elif _is_reference(value) and not _is_object_path(value):
            texts[name] = f"is {_reference_text(value)}, which is None or empty"
    return texts


def _is_object_path(value: Any) -> bool:
    """Whether it is an ``ObjectStoragePath``."""
    return hasattr(value, "conn_id") and hasattr(value, "protocol")


def _is_reference(value: Any) -> bool:
    # Airflow's rule for values that it resolves instead of rendering (measured with 3.3.2).
    return hasattr(value, "resolve") and not isinstance(value, os.PathLike)


def _reference_text(value: Any) -> str:
    references: Any = getattr(value, "iter_references", tuple)()
    tasks = dict.fromkeys(repr(operator.task_id) for operator, _ in references)
    if not tasks:
        return kind_of(value)  # such as a parameter of the DAG
    return f"the output of task{'s' if len(tasks) > 1 else ''} {', '.join(tasks)}"


def problems_so_far(values: Mapping[str, Any], *, endpoint_follows: bool = False) -> list[Problem]:
    """What is wrong with the parameters that are known already. The others are not checked.

    ``endpoint_follows``: the endpoint is not known yet, since a connection will give it.
    """
    unknown = {name for name, value in values.items() if is_unresolved(value)}
    if endpoint_follows:
        unknown.add("rdzv_endpoint")
    known = {name: value for name, value in values.items() if name not in unknown}
    problems = task_problems(known)
    try:
        launch_config(known)
    except ConfigError as error:
        problems += error.problems
    return [one for one in problems if unknown.isdisjoint((one.field, *one.others))]


def blank_templates(unresolved: Mapping[str, str], rendered: Mapping[str, Any]) -> list[Problem]:
    """One problem for each of the parameters in ``unresolved`` (see ``unresolved_texts``) that has
    come to nothing.
    """
    return [
        Problem(name, f"{text}; wanted a value, or no {name} at all")
        for name, text in unresolved.items()
        if str(rendered[name]).strip() in {"", "None"}
    ]


def task_problems(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the operator's own parameters, which are not the launcher's."""
    problems = env_problems(values.get("env"))
    conn_id = values.get("rdzv_conn_id")
    if not isinstance(conn_id, str | None):
        problems.append(conn_id_problem(conn_id))
    elif conn_id and values.get("rdzv_endpoint"):
        text = "and rdzv_endpoint are both given; give one of them"
        problems.append(Problem("rdzv_conn_id", text, ("rdzv_endpoint",)))
    problems += [
        Problem(name, f"is {shown(value)}; wanted a path")
        for name in ("cwd", "python")
        if not isinstance(value := values.get(name), str | None) or "\0" in (value or "")
    ]
    problems += [
        Problem(name, f"is {shown(values[name])}; wanted {wanted}, or None")
        for name, method, wanted in (
            ("retry_policy", "evaluate", "an ElasticRetryPolicy(...)"),
            ("launch_retry", "run", "a LaunchRetry(...)"),
        )
        if (given := values.get(name)) is not None and not callable(getattr(given, method, None))
    ]
    limit = values.get("result_limit")
    if limit is not None and (not _is_count(limit) or limit < 1):
        problems.append(Problem("result_limit", f"is {shown(limit)}; wanted a number of bytes"))
    threshold = values.get("results_threshold", 0)
    if not _is_count(threshold) or threshold < 0:
        text = f"is {shown(threshold)}; wanted 0 or more bytes"
        problems.append(Problem("results_threshold", text))
    problems += _path_problems(values.get("results_path"))
    problems += link_problems(values.get("links"))
    problems += _checkpoint_problems(values.get("checkpoint_path"))
    form = values.get("results_format", "json")
    if not isinstance(form, str) or form not in {"json", "npz"}:
        problems.append(Problem("results_format", f"is {shown(form)}; wanted 'json' or 'npz'"))
    if not values.get("gang_nodes") and not values.get("rdzv_id") and least_nodes(values) > 1:
        text = (
            f"is {values['nnodes']!r}, but this task is one node, and without an rdzv_id nobody "
            "else can join its job; make it a gang, or give all tasks that are its nodes the same "
            "rdzv_id"
        )
        problems.append(Problem("nnodes", text, ("rdzv_id",)))
    timeout = values.get("gang_timeout", 0)
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout >= 0:
        problems.append(Problem("gang_timeout", f"is {shown(timeout)}; wanted 0 or more seconds"))
    if values.get("multiple_outputs"):
        text = (
            "is not supported: the return value is a dict by rank, and each rank's value is also "
            "pushed as rank_0, rank_1, ...; leave multiple_outputs out"
        )
        problems.append(Problem("multiple_outputs", text))
    return problems


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _path_problems(given: Any) -> list[Problem]:
    """What is wrong with the form of ``results_path``. A relative path is refused: it would mean
    another folder on each worker.
    """
    if given is None or hasattr(given, "conn_id"):  # an ObjectStoragePath
        return []
    if isinstance(given, str) and ("://" in given or given.startswith("/")):
        return []
    text = (
        f"is {shown(given)}; wanted an ObjectStoragePath or its URI, such as "
        "s3://conn_id@bucket/folder, or an absolute path that all workers share"
    )
    return [Problem("results_path", text)]


def _checkpoint_problems(given: Any) -> list[Problem]:
    """What is wrong with the form of ``checkpoint_path`` in Airflow, where a next try may be on
    another worker. The rest is checked with the launcher's parameters.
    """
    path = str(given) if isinstance(given, os.PathLike) or is_number(given) else given
    relative = isinstance(path, str) and path and not path.startswith(("/", "~"))
    if not relative or ":" in path:
        return []
    text = (
        f"is {path!r}, which is another folder on each worker; wanted an absolute path that all "
        "workers share, or a URI that fsspec knows"
    )
    return [Problem("checkpoint_path", text)]


def entrypoint_problems(given: Any) -> list[Problem]:
    """What is wrong with the type of the entrypoint ``given``."""
    if getattr(given, "_airflow_is_task_decorator", False):
        text = (
            "is a task, made by a decorator; wanted the function itself, or decorate it with "
            "@task.elastic instead"
        )
        return [Problem("entrypoint", text)]
    if callable(given):
        problem = function_problem(given)
        return [] if problem is None else [Problem("entrypoint", problem)]
    if isinstance(given, str):
        return []
    text = (
        f"is {shown(given)}; wanted a function, 'package.module:function', a script, '-m module' "
        "or a command"
    )
    return [Problem("entrypoint", text)]
