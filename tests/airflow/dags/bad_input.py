"""A DAG whose every task makes one mistake, and would be retried twice if a retry were thought to
help.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from mistakes import MISTAKES

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.retries import ElasticRetryPolicy, LaunchRetry, RetryRow


@dag(
    schedule=None,
    params={"script": ""},
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=1),
        "retry_policy": ElasticRetryPolicy(infrastructure=RetryRow(delay=1)),
    },
)
def bad_input() -> None:
    """One task a mistake; the last three take a function to make."""
    for task_id, mistake in MISTAKES.items():
        ElasticLaunchOperator(
            task_id=task_id, launch_retry=LaunchRetry(attempts=1), **mistake.parameters
        )

    @task.elastic(nproc_per_node=1)
    def asks_for_the_task_instance(ti: Any) -> None:
        print(ti)

    asks_for_the_task_instance()

    def takes_one(number: int) -> None:
        print(number)

    ElasticLaunchOperator(task_id="two_for_one", entrypoint=takes_one, op_args=[1, 2])

    lock = __import__("threading").Lock()

    @task.elastic(nproc_per_node=1)
    def holds_a_lock() -> None:
        print(lock)

    holds_a_lock()


bad_input()
