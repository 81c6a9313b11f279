"""Runs one task instance through Airflow's own task runner, in this process, without a database.

Rendering, context, XCom, timeouts, signal handlers, the outcome's state: all of that is Airflow's.
Only the API server's answers come from here.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels import _generated as models
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse, OKResponse, XComSequenceSliceResult
from airflow.sdk.execution_time.supervisor import run_task_in_process

__all__ = ["Outcome", "run_context", "run_task"]

NOW = dt.datetime(2026, 11, 22, 9, 30, tzinfo=dt.UTC)


@dataclass
class Outcome:
    """What became of the task instance. ``xcoms`` is what it pushed, by key."""

    state: str
    error: BaseException | None
    xcoms: dict[str, Any] = field(default_factory=dict)


def run_task(
    task: Any,
    *,
    upstream: dict[str, Any] | None = None,
    run_id: str = "manual__2026-11-22T09:30:00+00:00",
    try_number: int = 1,
    map_index: int = -1,
    should_retry: bool = True,
    max_tries: int = 1,
    store: dict[str, Any] | None = None,
) -> Outcome:
    """Run ``task`` of its DAG. ``upstream`` holds XCom values by task id; a list is a mapped
    task's.

    ``should_retry`` is whether Airflow has tries left; ``store`` is the task instance's state
    store.
    """
    pushed: dict[str, Any] = {}
    upstream = upstream or {}
    client = mock.create_autospec(Client, instance=True)
    client.task_instances.start.return_value = run_context(
        task.dag.dag_id, run_id, should_retry, max_tries
    )
    kept = {} if store is None else store
    client.task_state_store.get.side_effect = lambda ti_id, key: (
        models.TaskStateStoreResponse(value=kept[key])
        if key in kept
        else ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND)
    )
    client.task_state_store.set.side_effect = lambda ti_id, key, value, **options: kept.update(
        {key: json.loads(json.dumps(value))}
    )

    def push(dag_id, run_id, task_id, key, value, *args, **options):
        if not key.startswith("_link_"):  # Airflow pushes the task's links there
            pushed[key] = value
        return OKResponse(ok=True)

    client.xcoms.set.side_effect = push
    client.xcoms.get.side_effect = lambda dag_id, run_id, task_id, key, *args, **options: (
        models.XComResponse(key=key, value=upstream[task_id])
    )
    client.xcoms.get_sequence_slice.side_effect = lambda dag_id, run_id, task_id, *args, **_: (
        XComSequenceSliceResult(root=upstream[task_id])
    )
    client.xcoms.get_sequence_item.side_effect = lambda dag_id, run_id, task_id, key, offset: (
        models.XComSequenceIndexResponse(root=upstream[task_id][offset])
        if offset < len(upstream[task_id])
        else _no_such_item()
    )
    instance = models.TaskInstance(
        id=uuid.uuid4(),
        task_id=task.task_id,
        dag_id=task.dag.dag_id,
        run_id=run_id,
        try_number=try_number,
        map_index=map_index,
        dag_version_id=uuid.uuid4(),
    )
    result = run_task_in_process(instance, task, client=client)
    return Outcome(str(result.state.value), result.error, pushed)


def _no_such_item() -> Any:
    return ErrorResponse(error=ErrorType.XCOM_NOT_FOUND)


def run_context(
    dag_id: str, run_id: str, should_retry: bool, max_tries: int
) -> models.TIRunContext:
    dag_run = models.DagRun.model_construct(
        dag_id=dag_id,
        run_id=run_id,
        logical_date=NOW,
        data_interval_start=NOW,
        data_interval_end=NOW,
        run_after=NOW,
        start_date=NOW,
        end_date=None,
        clear_number=0,
        run_type=models.DagRunType.MANUAL,
        state=models.DagRunState.RUNNING,
        conf={},
        consumed_asset_events=[],
        partition_key=None,
        partition_date=None,
        note=None,
        triggering_user_name=None,
        team_name=None,
    )
    return models.TIRunContext.model_construct(
        dag_run=dag_run,
        task_reschedule_count=0,
        max_tries=max_tries,
        variables=[],
        connections=[],
        xcom_keys_to_clear=[],
        should_retry=should_retry,
        next_method=None,
        next_kwargs=None,
        start_date=None,
        upstream_map_indexes=None,
    )
