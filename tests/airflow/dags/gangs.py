"""Gangs: jobs of two nodes, each of which is a mapped task instance. Their workers do next to
nothing.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import duties
from airflow.sdk import dag, task

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.results import gang_results


@dag(schedule=None)
def party() -> None:
    """Goes on, with whoever is there, until it is let go."""

    @task.elastic(
        gang=2,
        min_nodes=1,
        rdzv_conn_id="etcd_tests",
        grace_period=10,
        retries=1,
        retry_delay=timedelta(seconds=1),
    )
    def meet(run_id: str) -> dict[str, str]:
        return duties.stay(run_id)

    @task
    def compare(ti: Any = None) -> dict[str, Any]:
        ranks = gang_results("meet", ti)
        return {str(rank): value["drawn"] for rank, value in ranks.items()}

    meet() >> compare()


@dag(schedule=None)
def troupe() -> None:
    """One gang in the classic style, and one task downstream of it."""
    troupe = ElasticLaunchOperator.gang(
        task_id="play",
        nodes=2,
        entrypoint="duties:identity",
        rdzv_conn_id="etcd_tests",
    )

    @task
    def applaud(ti: Any = None) -> list[str]:
        return [value["rank"] for value in gang_results("play", ti).values()]

    troupe >> applaud()


@dag(schedule=None)
def crowd() -> None:
    """A gang of up to three, in a pool of two slots."""

    @task.elastic(gang=3, min_nodes=2, pool="two_slots", rdzv_conn_id="etcd_tests")
    def come() -> dict[str, str]:
        return duties.identity()

    @task
    def count(ti: Any = None) -> int:
        return len(gang_results("come", ti))

    come() >> count()


@dag(schedule=None)
def squeeze() -> None:
    """A gang in a pool that has too few slots for it, at first. A test may delay a node's start."""

    @task.elastic(
        gang=2,
        pool="narrow",
        rdzv_conn_id="etcd_tests",
        rdzv_configs={"timeout": 10},
        retries=0,
        python=str(Path(__file__).with_name("slow_python.sh")),
        env={"PYTHON": sys.executable, "HOLD": "hold-{{ run_id }}-{{ ti.map_index }}"},
    )
    def fit_in() -> dict[str, str]:
        return duties.identity()

    fit_in()


party()
squeeze()
troupe()
crowd()
