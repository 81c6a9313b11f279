"""Gangs that are restarted, ended and run again by all the ways that Airflow has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duties
from airflow.sdk import dag, task


@dag(schedule=None)
def pact() -> None:
    """Two nodes that can do nothing without each other."""

    @task.elastic(gang=2, rdzv_conn_id="etcd_tests", grace_period=10, retries=0)
    def meet(run_id: str) -> dict[str, str]:
        return duties.stay(run_id)

    meet()


@dag(schedule=None, dagrun_timeout=timedelta(seconds=60))
def fleeting() -> None:
    """A DAG run that is over before its gang is."""

    @task.elastic(gang=2, rdzv_conn_id="etcd_tests", grace_period=10, retries=0)
    def meet(run_id: str) -> dict[str, str]:
        return duties.stay(run_id)

    meet()


# It was over long ago: no run is scheduled, and a backfill may ask for all of them.
@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    end_date=datetime(2026, 1, 3, tzinfo=UTC),
    catchup=False,
)
def daily() -> None:
    """Gangs that wait until three of them run."""

    @task.elastic(gang=2, rdzv_conn_id="etcd_tests", retries=0)
    def meet() -> dict[str, str]:
        duties.meet("backfill", 6, seconds=150)
        return duties.identity()

    meet()


pact()
fleeting()
daily()
