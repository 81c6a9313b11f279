"""One process of the benchmark of logs: a task under Airflow's supervisor, which writes its log.

Only the API server is made up. Prints JSON: the seconds from the first of the task's lines in the
log to the last, how many there are, and what the task returned.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any
from unittest import mock

_HERE = Path(__file__).parent


def _settings(home: str) -> dict[str, str]:
    bundle = {
        "name": "loud",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(_HERE / "loud")},
    }
    return {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{home}/logs",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "TMPDIR": home,
    }


def _run(task_id: str, home: str) -> dict[str, Any]:
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.sdk.api.client import Client
    from airflow.sdk.api.datamodels import _generated as models
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time import supervisor
    from airflow.sdk.execution_time.comms import ErrorResponse, OKResponse

    from tests.support.airflow_task import run_context

    pushed: dict[str, Any] = {}

    def push(_dag: str, _run: str, _task: str, key: str, value: Any, *_: Any, **__: Any) -> Any:
        pushed[key] = value
        return OKResponse(ok=True)

    client = mock.create_autospec(Client, instance=True)
    client.task_instances.start.return_value = run_context("loud", "manual__1", True, 1)
    missing = ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND)
    client.task_state_store.get.side_effect = lambda *_, **__: missing
    client.task_state_store.set.side_effect = lambda *_, **__: OKResponse(ok=True)
    client.xcoms.set.side_effect = push
    instance = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id=task_id,
        dag_id="loud",
        run_id="manual__1",
        try_number=1,
        map_index=-1,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )
    supervisor.supervise_task(
        ti=instance,
        bundle_info=models.BundleInfo(name="loud"),
        dag_rel_path="dag.py",
        token="",
        client=client,
        log_path="task.log",
    )
    log = Path(home, "logs", "task.log").read_text().splitlines()
    told = [(one["timestamp"], one["event"].count("loss 0.123456")) for one in map(json.loads, log)]
    times = [dt.datetime.fromisoformat(at) for at, lines in told if lines]
    seconds = (times[-1] - times[0]).total_seconds() if times else 0.0
    return {
        "seconds": seconds,
        "lines": sum(lines for _, lines in told),
        "returned": pushed.get("return_value"),
    }


def _main(task_id: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ |= _settings(home)
        os.environ.pop("PYTHONUNBUFFERED", None)
        out = os.dup(1)
        os.dup2(2, 1)  # the supervisor has a log of its own
        found = _run(task_id, home)
        os.write(out, json.dumps(found).encode())


if __name__ == "__main__":
    sys.path.append(str(_HERE.parents[1]))
    _main(sys.argv[1])
