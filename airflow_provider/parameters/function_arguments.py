"""Prepares a job's arguments: those in the DAG file, values of upstream tasks, and values of
Airflow's context.

All must be plain values when they are sent, since the agent and its workers have no connection to
Airflow. This module imports Airflow's names only inside functions that run in a task.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llutil.errors import EntrypointError

__all__ = ["LIVE_CONTEXT", "PLAIN_CONTEXT", "context_arguments", "read_lazy_sequences"]

PLAIN_CONTEXT = frozenset(
    {
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "expanded_ti_count",
        "logical_date",
        "map_index_template",
        "params",
        "partition_date",
        "partition_key",
        "prev_data_interval_end_success",
        "prev_data_interval_start_success",
        "prev_end_date_success",
        "prev_start_date_success",
        "run_id",
        "task_instance_key_str",
        "task_reschedule_count",
        "test_mode",
        "try_number",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
    }
)
"""Names of Airflow 3.3's context whose values can be sent to a worker."""

LIVE_CONTEXT = frozenset(
    {
        "asset_state_store",
        "conn",
        "dag",
        "dag_run",
        "exception",
        "inlet_events",
        "inlets",
        "macros",
        "outlet_events",
        "outlets",
        "reason",
        "task",
        "task_instance",
        "task_state_store",
        "templates_dict",
        "ti",
        "triggering_asset_events",
        "var",
    }
)
"""Names of Airflow 3.3's context whose values only work inside the task's own process."""


def read_lazy_sequences(value: Any) -> Any:
    """``value`` with each of Airflow's lazy sequences, at any depth, read into a list.

    The output of a mapped upstream task is such a sequence. It asks Airflow for each item when the
    item is used, which a worker cannot do.
    """
    if isinstance(value, dict):
        return {key: read_lazy_sequences(item) for key, item in value.items()}
    if type(value) in {list, tuple, set}:
        return type(value)(read_lazy_sequences(item) for item in value)
    if isinstance(value, Sequence) and type(value).__module__.startswith("airflow.sdk."):
        return [read_lazy_sequences(item) for item in value]
    return value


def context_arguments(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    context: Mapping[str, Any],
) -> dict[str, Any]:
    """The values of ``context`` that ``function`` has parameters for, by name, except those that
    ``args`` and ``kwargs`` give.

    Times are ``datetime`` values in UTC, which need no pendulum in the worker's interpreter.
    ``**kwargs`` of the function gets no values.

    :raises EntrypointError: a parameter without a default names a value that works only inside the
        task's process, or that this DAG run does not have; the text lists all of them.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions that are written in C have no signature
        return {}
    try:
        given = set(signature.bind_partial(*args, **kwargs).arguments)
    except TypeError:
        given = set(kwargs)  # `check_arguments` refuses arguments that do not fit
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, parameter in signature.parameters.items():
        default = parameter.default
        # By identity: an array answers == with an array, which is neither true nor false.
        own_default = default is not inspect.Parameter.empty and default is not None
        if name in given or parameter.kind not in named:
            continue
        if name in PLAIN_CONTEXT:
            if name in context or name == "try_number":
                found[name] = _plain(name, context)
            elif default is inspect.Parameter.empty:
                problems.append(
                    f"the function's parameter {name!r} has no value in this DAG run (runs "
                    "without a logical date have no dates); give it a default"
                )
        elif name in LIVE_CONTEXT and not own_default:
            problems.append(
                f"the function's parameter {name!r} means Airflow's context value {name!r}, which "
                "works only in the task's own process; pass the values that the workers need, for "
                f"example {_advice(name)}, or rename the parameter"
            )
    if problems:
        raise EntrypointError(problems)
    return found


def _advice(name: str) -> str:
    return {
        "conn": "op_kwargs={'uri': '{{ conn.my_conn.get_uri() }}'}",
        "var": "op_kwargs={'value': '{{ var.value.my_variable }}'}",
        "dag": "op_kwargs={'dag_id': '{{ dag.dag_id }}'}",
        "task": "op_kwargs={'task_id': '{{ task.task_id }}'}",
        "dag_run": "op_kwargs={'conf': '{{ dag_run.conf }}'}",
    }.get(name, "op_kwargs={'try_number': '{{ ti.try_number }}'}")


def _plain(name: str, context: Mapping[str, Any]) -> Any:
    if name == "try_number":
        return context["ti"].try_number
    value = context[name]
    if hasattr(value, "__wrapped__"):  # a lazy value, which is computed at its first use
        value = value.__wrapped__
    if isinstance(value, dt.datetime):
        utc = value.astimezone(dt.UTC)
        return dt.datetime.combine(utc.date(), utc.time(), dt.UTC)
    if isinstance(value, Mapping):
        return dict(value)
    return value
