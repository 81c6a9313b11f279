"""The soak's jobs: one DAG for each kind.

A run is given the folder of the job, in which its ranks write down what they do, and the folder of
all jobs' checkpoints, which is a small disk of its own. The variable SOAK_CONNECTION says where
gangs meet; without it node 0 serves the ledger.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.retries import ElasticRetryPolicy, RetryRow

_PARAMS = {"folder": "/nowhere", "checkpoints": "/nowhere", "samples": 0, "seconds": 0.02}
_CONNECTION = os.environ.get("SOAK_CONNECTION") or None
_TRAINING = ["{{ params.samples }}", "{{ params.seconds }}"]
_NEVER = RetryRow(retries=0)
_SOON = RetryRow(retries=50, delay=1)
_POLICY = ElasticRetryPolicy(
    infrastructure=_SOON,
    preemption=_SOON,
    hang=_NEVER,
    out_of_memory=_NEVER,
    user_code=_NEVER,
    bad_configuration=_NEVER,
)
_COMMON: dict[str, Any] = {
    "task_id": "job",
    "env": {
        "SOAK": os.environ.get("SOAK", ""),
        "SOAK_JOB": "{{ params.folder }}",
    },
    "grace_period": 5,
    "retries": 20,
    "retry_delay": timedelta(seconds=1),
    "retry_policy": _POLICY,
}
_SAVES = {"checkpoint_path": "{{ params.checkpoints }}", "checkpoint_every": "1s"}
"""For jobs that train. Those that have to fail save nothing: a full disk would be a failure of
their own.
"""
_TIMES = {"last_call_timeout": 3, "lease_ttl": 5, "timeout": 120}
_GANG: dict[str, Any] = {"nodes": 2, "rdzv_conn_id": _CONNECTION, "rdzv_configs": _TIMES}


def _dag(kind: str) -> DAG:
    return DAG(kind, schedule=None, params=_PARAMS, max_active_runs=20)


with _dag("lockstep"):
    ElasticLaunchOperator.gang(
        **_COMMON,
        **_GANG,
        min_nodes=2,
        nproc_per_node=1,
        entrypoint="soak_work:train",
        op_args=[*_TRAINING, "lockstep"],
        **_SAVES,
        max_restarts=50,
    )

with _dag("elastic"):
    ElasticLaunchOperator.gang(
        **_COMMON,
        **_GANG,
        min_nodes=1,
        nproc_per_node=2,
        start_method="spawn",
        entrypoint="soak_work:train",
        op_args=_TRAINING,
        **_SAVES,
        max_restarts=50,
    )

with _dag("single"):
    ElasticLaunchOperator(
        **_COMMON,
        nproc_per_node=2,
        start_method="spawn",
        entrypoint="soak_work:train",
        op_args=_TRAINING,
        **_SAVES,
        max_restarts=50,
    )

with _dag("fails_as_gang"):
    ElasticLaunchOperator.gang(
        **_COMMON,
        **_GANG,
        min_nodes=2,
        nproc_per_node=1,
        start_method="spawn",
        entrypoint="soak_work:fail",
        op_args=["exception", *_TRAINING],
        max_restarts=1,
    )

for _how in ("exception", "exit", "memory", "hang", "result"):
    with _dag(f"fails_by_{_how}"):
        ElasticLaunchOperator(
            **_COMMON,
            nproc_per_node=2,
            start_method="spawn",
            entrypoint="soak_work:fail",
            op_args=[_how, *_TRAINING],
            hang_timeout=15,
            max_restarts=0 if _how == "hang" else 1,
        )

with _dag("fails_by_configuration"):
    ElasticLaunchOperator(**_COMMON, nproc_per_node=1, entrypoint="soak_work:there_is_none")
