"""An operator's parameters, as a user wrote them or as Airflow rendered them: checked, and made a
``LaunchConfig``.

A parameter may hold a template or an upstream task's output until the task runs. So the same check
is made twice: when the DAG is parsed, of what is known then, and when the task runs, of everything.
Either way one error names everything that is wrong. Nothing here touches a file, a network or
Airflow's API.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from llutil.errors import ConfigError, Problem
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.std import Std
from llutil.task_link.messages import unsendable

__all__ = [
    "LAUNCH_PARAMETERS",
    "blank_templates",
    "entrypoint_problems",
    "has_several_nodes",
    "is_open",
    "launch_config",
    "problems_so_far",
    "task_problems",
]

LAUNCH_PARAMETERS: Mapping[str, str] = {
    "rdzv_id": "run_id",
    "grace_period": "shutdown_timeout",
    **{
        name: name
        for name in (
            "nproc_per_node",
            "role",
            "rdzv_endpoint",
            "rdzv_backend",
            "rdzv_configs",
            "rdzv_timeout",
            "max_restarts",
            "monitor_interval",
            "start_method",
            "log_dir",
            "redirects",
            "tee",
            "local_ranks_filter",
            "metrics_cfg",
            "local_addr",
            "event_log_handler",
            "exit_timeout",
            "rerun_token",
            "node_index",
            "node_label",
        )
    },
}
"""The parameters that are fields of ``LaunchConfig``, and the fields' names. ``nnodes`` makes the
other two fields.
"""

_PARAMETERS: Mapping[str, str] = {
    "min_nodes": "nnodes",
    "max_nodes": "nnodes",
    **{field: parameter for parameter, field in LAUNCH_PARAMETERS.items()},
}
"""The parameter that makes each field of ``LaunchConfig``."""

_TEXTS = frozenset(
    {
        "rdzv_id",
        "role",
        "rdzv_endpoint",
        "rdzv_backend",
        "start_method",
        "log_dir",
        "local_addr",
        "event_log_handler",
        "rerun_token",
        "node_label",
    }
)
_NUMBERS: Mapping[str, type[int] | type[float]] = {
    "node_index": int,
    "max_restarts": int,
    "monitor_interval": float,
    "rdzv_timeout": float,
    "exit_timeout": float,
    "grace_period": float,
}


def is_open(value: Any) -> bool:
    """Whether ``value`` will only be known when the task runs: a template, an ``XComArg``, or one
    inside.
    """
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return any(map(is_open, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(is_open, value))
    if hasattr(value, "conn_id") and hasattr(value, "protocol"):
        return is_open(str(value))  # an ObjectStoragePath, which Airflow renders
    # Airflow's own rule for what it resolves instead of rendering (measured with Airflow 3.3.2).
    return hasattr(value, "resolve") and not isinstance(value, os.PathLike)


def problems_so_far(values: Mapping[str, Any], *, endpoint_follows: bool = False) -> list[Problem]:
    """What is wrong with those of the parameters that are known already; the others get the benefit
    of the doubt.

    ``endpoint_follows``: where nodes meet is said by something else than ``rdzv_endpoint``.
    """
    unknown = {name for name, value in values.items() if is_open(value)}
    if endpoint_follows:
        unknown.add("rdzv_endpoint")
    known = {name: value for name, value in values.items() if name not in unknown}
    problems = task_problems(known)
    try:
        launch_config(known)
    except ConfigError as error:
        problems += error.problems
    return [one for one in problems if unknown.isdisjoint((one.field, *one.others))]


def blank_templates(templates: Mapping[str, str], rendered: Mapping[str, Any]) -> list[Problem]:
    """A problem for each parameter whose template has rendered to nothing."""
    return [
        Problem(
            name, f"is {template!r}, which rendered to nothing; wanted a value, or no {name} at all"
        )
        for name, template in templates.items()
        if str(rendered[name]).strip() in {"", "None"}
    ]


def task_problems(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the parameters that are the operator's own and not the launcher's."""
    problems: list[Problem] = []
    env = values.get("env") or {}
    if not isinstance(env, Mapping) or not all(
        isinstance(part, str) and "\0" not in part for item in env.items() for part in item
    ):
        problems.append(Problem("env", f"is {env!r}; wanted a dict of strings, numbers in quotes"))
    elif any(not name or "=" in name for name in env):
        text = f"has the names {', '.join(map(repr, env))}; no name may be empty or hold '='"
        problems.append(Problem("env", text))
    conn_id = values.get("rdzv_conn_id")
    if not isinstance(conn_id, str | None):
        text = f"is {conn_id!r}; wanted the name of an Airflow connection"
        problems.append(Problem("rdzv_conn_id", text))
    elif conn_id and values.get("rdzv_endpoint"):
        text = "and rdzv_endpoint are both given; give one of them"
        problems.append(Problem("rdzv_conn_id", text, ("rdzv_endpoint",)))
    problems += [
        Problem(name, f"is {values[name]!r}; wanted a path")
        for name in ("cwd", "python")
        if not isinstance(values.get(name), str | None)
    ]
    policy = values.get("retry_policy")
    if policy is not None and not callable(getattr(policy, "evaluate", None)):
        text = f"is {policy!r}; wanted an ElasticRetryPolicy(...), or None"
        problems.append(Problem("retry_policy", text))
    limit = values.get("result_limit")
    if limit is not None and (not _is_count(limit) or limit < 1):
        problems.append(Problem("result_limit", f"is {limit!r}; wanted a number of bytes"))
    threshold = values.get("results_threshold", 0)
    if not _is_count(threshold) or threshold < 0:
        problems.append(Problem("results_threshold", f"is {threshold!r}; wanted 0 or more bytes"))
    problems += _path_problems(values.get("results_path"))
    form = values.get("results_format", "json")
    if form not in {"json", "npz"}:
        problems.append(Problem("results_format", f"is {form!r}; wanted 'json' or 'npz'"))
    if not values.get("gang_nodes") and not values.get("rdzv_id") and _least_nodes(values) > 1:
        text = (
            f"is {values['nnodes']!r}, but this task is one node, and without an rdzv_id nobody "
            "else can join its job; make it a gang, or give all tasks that are its nodes the same "
            "rdzv_id"
        )
        problems.append(Problem("nnodes", text, ("rdzv_id",)))
    patience = values.get("gang_timeout", 0)
    if not isinstance(patience, int | float) or isinstance(patience, bool) or not patience >= 0:
        problems.append(Problem("gang_timeout", f"is {patience!r}; wanted 0 or more seconds"))
    if values.get("multiple_outputs"):
        text = (
            "is not supported: the return value is a dict of ranks, of which each is also pushed "
            "by itself, as rank_0, rank_1, ...; leave multiple_outputs out"
        )
        problems.append(Problem("multiple_outputs", text))
    return problems


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _path_problems(given: Any) -> list[Problem]:
    """What is wrong with ``results_path``, as far as its form tells: a worker's own folder means
    nothing elsewhere.
    """
    if given is None or hasattr(given, "conn_id"):  # an ObjectStoragePath
        return []
    if isinstance(given, str) and ("://" in given or given.startswith("/")):
        return []
    text = (
        f"is {given!r}; wanted an ObjectStoragePath or its URI, such as "
        "s3://conn_id@bucket/folder, "
        "or an absolute path that all workers share"
    )
    return [Problem("results_path", text)]


def entrypoint_problems(given: Any) -> list[Problem]:
    """What is wrong with ``given`` as an entrypoint, as far as its type tells."""
    if getattr(given, "_airflow_is_task_decorator", False):
        text = (
            "is a task, made by a decorator; wanted the function itself, or decorate it with "
            "@task.elastic instead"
        )
        return [Problem("entrypoint", text)]
    if callable(given) or isinstance(given, str):
        return []
    text = (
        f"is {given!r}; wanted a function, 'package.module:function', a script, '-m module' or a "
        "command"
    )
    return [Problem("entrypoint", text)]


def has_several_nodes(values: Mapping[str, Any]) -> bool:
    """Whether the job may have more than one node, as far as its ``nnodes`` make sense."""
    try:
        return _nodes(values.get("nnodes", 1))[1] > 1
    except ValueError:
        return False


def _least_nodes(values: Mapping[str, Any]) -> int:
    """How many nodes the job needs; 1 if its ``nnodes`` make no sense, which is said elsewhere."""
    try:
        low, high = _nodes(values.get("nnodes", 1))
    except ValueError:
        return 1
    return low if low <= high else 1


def launch_config(values: Mapping[str, Any]) -> LaunchConfig:
    """The ``LaunchConfig`` that ``values``, parameters of the operator by name, amount to; others
    are ignored.

    Numbers may be text, as templates render them. What is missing or None has the launcher's
    default.

    :raises ConfigError: lists all that is wrong.
    """
    problems: list[Problem] = []
    fields: dict[str, Any] = {"nproc_per_node": 1}
    for parameter, field in LAUNCH_PARAMETERS.items():
        value = values.get(parameter)
        if value is None:
            continue
        value = _plain(value)
        if parameter in _TEXTS and not isinstance(value, str):
            problems.append(Problem(parameter, f"is {value!r}; wanted text"))
        elif parameter in _NUMBERS and isinstance(value, str):
            try:
                fields[field] = _NUMBERS[parameter](value)
            except ValueError:
                problems.append(Problem(parameter, f"is {value!r}; wanted a number"))
        else:
            fields[field] = value
    count = fields["nproc_per_node"]
    if isinstance(count, str) and count.strip().isdecimal():
        fields["nproc_per_node"] = int(count)
    timeout = fields.pop("rdzv_timeout", -1)
    if timeout != -1:
        fields["rdzv_configs"] = {**fields.get("rdzv_configs", {}), "timeout": timeout}
    low, high = 1, 1
    try:
        low, high = _nodes(values.get("nnodes", 1))
    except ValueError as error:
        problems.append(Problem("nnodes", str(error)))
    config = LaunchConfig(min_nodes=low, max_nodes=high, **fields)
    problems += [_of_parameter(one, config) for one in (*problems_of(config), *unsendable(config))]
    if problems:
        raise ConfigError(problems)
    return config


def _plain(value: Any) -> Any:
    """``value`` in the form in which it can be sent to an agent."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Collection) and not isinstance(value, str | Std):
        return list(value)
    return value


def _of_parameter(problem: Problem, config: LaunchConfig) -> Problem:
    """``problem``, which is about a field of ``config``, about the parameter that makes the
    field.
    """
    text = problem.text
    if problem.field == "rdzv_endpoint" and not config.rdzv_endpoint:
        text += ", or rdzv_conn_id"
    return replace(
        problem,
        field=_PARAMETERS[problem.field],
        text=text,
        others=tuple(_PARAMETERS[name] for name in problem.others),
    )


def _nodes(given: Any) -> tuple[int, int]:
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    parts = text.split(":") if isinstance(text, str) else []
    if len(parts) not in {1, 2} or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"is {given!r}; wanted a number, or 'min:max'")
    low, high = int(parts[0]), int(parts[-1])
    if low < 1:
        raise ValueError(f"is {given!r}; wanted at least 1")
    if high < low:
        raise ValueError(
            f"is {given!r}: max_nodes is {high}, below min_nodes, which is {low}; wanted 'min:max'"
        )
    return low, high
