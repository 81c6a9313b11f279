"""A DAG whose tasks fail for good, each in its own way, with tries to spare."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import dag, task

from airflow_provider.retries import ElasticRetryPolicy, RetryRow


def keep(context: Any) -> None:
    """A callback of a user's: what is known of the failure goes where somebody can act on it."""
    error = context["exception"]
    failure = error.failure
    found = {
        "class": error.failure_class,
        "rank": failure.rank,
        "node": failure.node,
        "host": failure.host,
        "reason": failure.reason,
        "trace": failure.trace,
        "step": error.step,
    }
    context["ti"].xcom_push(key="failure", value=found)


def tell(context: Any) -> None:
    """The same before a retry, whose XComs begin empty."""
    error = context["exception"]
    print(f"to be retried: {error.failure_class}, {error.failure.reason}", flush=True)


@dag(
    schedule=None,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=1),
        "retry_policy": ElasticRetryPolicy(out_of_memory=RetryRow(retries=1, delay=1)),
        "on_failure_callback": keep,
        "on_retry_callback": tell,
    },
)
def tries() -> None:
    """Each would have four tries if nobody knew why it failed."""

    @task.elastic(nproc_per_node=1, max_restarts=0)
    def devours(run_id: str) -> NoReturn:
        from llutil.launcher import worker

        worker.progress(3, 10)
        raise MemoryError("no room for the batch")

    devours()

    @task.elastic(nproc_per_node=1, max_restarts=0)
    def repeats() -> NoReturn:
        raise ValueError(f"no data at {object()}")

    repeats()


tries()
