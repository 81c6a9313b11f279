"""The name of the folder that a task's job has for its checkpoints.

It must be the same for all tries of the task, on every host, after a retry and after a clear; for
all nodes of a gang; and another one in another Airflow that runs a DAG of the same name, at the
same time, with the same store.

Airflow gives a task nothing that names its deployment: URLs and folders differ between its hosts,
ids of task instances change with each try, and the id of a DAG's version with each change of the
DAG (3.3). What its metadata database alone has made up is the microsecond in which its scheduler
started the DAG run. All tasks of the run see it, and no other deployment has it. But it changes
when a run that has ended is cleared. So each task instance keeps the first one that it has seen in
its task state, which outlives retries and clears and goes with the DAG run. A node of a gang that
first runs after such a clear asks its siblings, who push theirs to XCom.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider.gang.node import GangNode
from airflow_provider.gang.xcom_values import pull_all
from llutil.errors import InfrastructureError
from llutil.launcher.run_id import TaskKey

__all__ = ["FIRST_START", "checkpoint_job"]

FIRST_START = "elastic_launch_first_start"
"""The key in the task's state, and in XCom for the nodes of a gang, of when the DAG run was first
started: a part of the name of its folder of checkpoints.
"""

# Seconds between two looks for what siblings have pushed, and how many looks there are: a sibling
# that has just started has not pushed it again yet.
_BETWEEN_LOOKS, _LOOKS = 2.0, 6


def checkpoint_job(
    key: TaskKey,
    node: GangNode | None,
    context: Mapping[str, Any],
    log: logging.Logger,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """The name of the folder of the job of ``key``; a gang's, if the task is a ``node`` of one.

    :raises InfrastructureError: Airflow does not say what this task has kept.
    """
    try:
        first_start = _first_start(node, context, log, sleep)
    except Exception as error:  # the stores of state and XCom may be the user's own
        raise InfrastructureError(
            "Airflow does not say where this task has its checkpoints (the key "
            f"{FIRST_START!r} of its state): {type(error).__name__}: {error}"
        ) from error
    return key.checkpoint_job(first_start, of_gang=node is not None)


def _first_start(
    node: GangNode | None,
    context: Mapping[str, Any],
    log: logging.Logger,
    sleep: Callable[[float], None],
) -> str:
    dag_run, store, ti = context.get("dag_run"), context.get("task_state_store"), context["ti"]
    started = dag_run.start_date.isoformat() if dag_run is not None and dag_run.start_date else ""
    kept = None if store is None else store.get(FIRST_START)
    if not (isinstance(kept, str) and kept):
        kept = started
        if node is not None and dag_run is not None and dag_run.clear_number:
            kept = _of_siblings(node, ti, log, sleep) or started
        if store is not None and kept:
            from airflow.sdk.execution_time.context import NEVER_EXPIRE

            store.set(FIRST_START, kept, retention=NEVER_EXPIRE)
    if node is not None and kept:
        ti.xcom_push(key=FIRST_START, value=kept)
    return kept


def _of_siblings(
    node: GangNode, ti: Any, log: logging.Logger, sleep: Callable[[float], None]
) -> str:
    """What siblings have kept, the earliest; empty if none of them has run before."""
    for look in range(_LOOKS):
        if look:
            sleep(_BETWEEN_LOOKS)
        found = [one for one in pull_all(ti, node.key.task_id, FIRST_START) if one]
        if texts := [one for one in found if isinstance(one, str)]:
            return min(texts)
        states = node.states(ti)
        if not any(state == "running" for n, state in states.items() if n != node.number):
            break
    log.info("no sibling of %s has run in this DAG run before", node.name)
    return ""
