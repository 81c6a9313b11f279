"""Makes a ``LaunchConfig`` from an operator's parameters.

The parameters are the fields of ``LaunchConfig``; a few have other names. A parameter may be text
that a template rendered. One error lists all problems, by the parameters' names. Nothing here
touches a file, a network or Airflow's API.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from airflow_provider.parameters.shown_value import shown
from llutil.errors import ConfigError, Problem
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.std import Std
from llutil.task_link.messages import unsendable

__all__ = ["LAUNCH_PARAMETERS", "has_several_nodes", "is_number", "launch_config", "least_nodes"]

_PARAMETERS: Mapping[str, str] = {
    **{one.name: one.name for one in fields(LaunchConfig)},
    "min_nodes": "nnodes",
    "max_nodes": "nnodes",
    "run_id": "rdzv_id",
    "shutdown_timeout": "grace_period",
}
"""The parameter that makes each field of ``LaunchConfig``."""

LAUNCH_PARAMETERS: Mapping[str, str] = {
    parameter: field for field, parameter in _PARAMETERS.items() if parameter != "nnodes"
}
"""The field of ``LaunchConfig`` for each parameter. ``nnodes`` is not here: it makes two fields."""


_SWITCHED_OFF = {"hang_timeout"}
"""Fields whose None means that something is switched off, and whose texts may be numbers."""


def _kind(hint: Any) -> Any:
    """The one type that a field of this annotation has; None if it may have several."""
    types = set(get_args(hint)) - {NoneType} if isinstance(hint, UnionType) else {hint}
    return types.pop() if len(types) == 1 else None


_KINDS: Mapping[str, Any] = {
    field: _kind(hint) for field, hint in get_type_hints(LaunchConfig).items()
}


def launch_config(values: Mapping[str, Any]) -> LaunchConfig:
    """The ``LaunchConfig`` for ``values``, which are parameters of the operator by name. Parameters
    that are not the launcher's are ignored.

    Numbers may be text, as templates render them. A parameter that is missing or None gets the
    launcher's default, unless None says that something is switched off.

    :raises ConfigError: parameters are wrong; the text lists all problems.
    """
    problems: list[Problem] = []
    found: dict[str, Any] = {"nproc_per_node": 1}
    for parameter, field in LAUNCH_PARAMETERS.items():
        value = values.get(parameter)
        if value is None and not (field in _SWITCHED_OFF and parameter in values):
            continue
        value = _plain(value)
        kind = _KINDS[field]
        if kind is str and is_number(value):
            found[field] = str(value)
        elif kind is str and not isinstance(value, str):
            problems.append(Problem(parameter, f"is {shown(value)}; wanted text"))
        elif field in _SWITCHED_OFF and isinstance(value, str) and value.strip().isdecimal():
            found[field] = int(value)
        elif kind in {int, float} and isinstance(value, str):
            try:
                found[field] = kind(value)
            except ValueError:
                problems.append(Problem(parameter, f"is {value!r}; wanted a number"))
        else:
            found[field] = value
    count = found["nproc_per_node"]
    if isinstance(count, str) and count.strip().isdecimal():
        found["nproc_per_node"] = int(count)
    timeout = found.pop("rdzv_timeout", -1)
    configs = found.get("rdzv_configs", {})
    if timeout != -1 and isinstance(configs, Mapping):  # else that is what is wrong
        found["rdzv_configs"] = {**configs, "timeout": timeout}
    low, high = 1, 1
    try:
        low, high = _nodes(values.get("nnodes", 1))
    except ValueError as error:
        problems.append(Problem("nnodes", str(error)))
    config = LaunchConfig(min_nodes=low, max_nodes=high, **found)
    problems += [
        _renamed_problem(one, config) for one in (*problems_of(config), *unsendable(config))
    ]
    if problems:
        raise ConfigError(problems)
    return config


def has_several_nodes(values: Mapping[str, Any]) -> bool:
    """Whether the job may have more than one node; False if ``nnodes`` is not valid."""
    try:
        return _nodes(values.get("nnodes", 1))[1] > 1
    except ValueError:
        return False


def least_nodes(values: Mapping[str, Any]) -> int:
    """How many nodes the job needs; 1 if ``nnodes`` is not valid, which ``launch_config`` says."""
    try:
        return _nodes(values.get("nnodes", 1))[0]
    except ValueError:
        return 1


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number, which may stand where text is wanted."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """``value`` in the form in which it can be sent to an agent."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Collection) and not isinstance(value, str | Std):
        return list(value)
    return value


def _renamed_problem(problem: Problem, config: LaunchConfig) -> Problem:
    """``problem`` with the name of the parameter in place of the field of ``config``."""
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
