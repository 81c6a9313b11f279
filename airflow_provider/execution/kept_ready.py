"""Whether agents are kept ready on this host between tasks, as the deployment says.

Only where tasks of one worker share a host: a container that is made for one task has no later one.
Airflow is imported inside functions.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from airflow_provider.execution.dag_test import is_dag_test
from airflow_provider.parameters.rendezvous import SECTION
from airflow_provider.preflight.facts import executor_of_task

__all__ = ["KEEP_AGENTS_READY", "seconds_kept_ready"]

KEEP_AGENTS_READY = "keep_agents_ready"
"""The option of Airflow's configuration, in seconds."""

_ON_HOSTS = ("CeleryExecutor", "EdgeExecutor", "LocalExecutor")
"""Executors whose workers run one task after another on one host (Airflow 3.3)."""


def seconds_kept_ready(task: Any, log: logging.Logger, first_time: Callable[[str], bool]) -> float:
    """How many seconds a host keeps agents ready for a next task; 0 if it does not.

    Where that is asked for and not done, the log says so once a host, as ``first_time`` tells.
    """
    seconds = _configured(log)
    if not seconds:
        return 0.0
    executor = executor_of_task(task)
    if is_dag_test():
        why = "dag.test() runs this task"
    elif executor not in _ON_HOSTS:
        why = f"{executor} may run each task in a container of its own"
    else:
        return seconds
    text = f"[{SECTION}] {KEEP_AGENTS_READY} is set, but no agents are kept ready: {why}"
    if first_time(text):
        log.info("%s", text)
    return 0.0


def _configured(log: logging.Logger) -> float:
    from airflow.sdk.configuration import conf

    given = str(conf.get(SECTION, KEEP_AGENTS_READY, fallback="0")).strip()
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not (0 <= seconds < math.inf):
        log.warning(
            "no agents are kept ready: [%s] %s is %r; wanted seconds, 0 for none",
            SECTION,
            KEEP_AGENTS_READY,
            given,
        )
        return 0.0
    return seconds
