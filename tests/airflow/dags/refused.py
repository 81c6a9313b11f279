"""A DAG file that is refused when it is parsed: all its mistakes are known then, and told at
once.
"""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider.operators.elastic import ElasticLaunchOperator


@dag(schedule=None)
def refused() -> None:
    ElasticLaunchOperator(
        task_id="wrong",
        entrypoint="beside:square",
        nnodes="4:2",
        nproc_per_node=0,
        rdzv_backend="pigeon",
        start_method="teleport",
    )


refused()
