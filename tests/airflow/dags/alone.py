"""Gangs that meet at their own first node, with no service but Airflow. Their workers do next to
nothing.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import duties
from airflow.sdk import dag, task

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.results import gang_results


def flag(run_id: str) -> Path:
    """The file that lets the workers of a run go."""
    return Path(tempfile.gettempdir(), f"go-{run_id.replace(':', '-')}")


@dag(schedule=None)
def alone() -> None:
    """Goes on, with both nodes, until it is let go."""

    @task.elastic(
        gang=2,
        grace_period=5,
        retries=1,
        retry_delay=timedelta(seconds=1),
        rdzv_backend="c10d",
        rdzv_configs={"timeout": 120},
    )
    def meet(run_id: str) -> dict[str, str]:
        print(f"rank {os.environ['RANK']} in a world of {os.environ['WORLD_SIZE']}", flush=True)
        while not flag(run_id).exists():
            time.sleep(0.1)
        return {"drawn": secrets.token_hex(8), **duties.identity()}

    @task
    def compare(ti: Any = None) -> dict[str, Any]:
        ranks = gang_results("meet", ti)
        return {str(rank): value["drawn"] for rank, value in ranks.items()}

    meet() >> compare()


@dag(schedule=None)
def sweep_beside_gang() -> None:
    """One job of two nodes, and two jobs of one node, mapped alike."""
    ElasticLaunchOperator.gang(
        task_id="gang",
        nodes=2,
        entrypoint="duties:identity",
        pool="two_slots",
        queue="default",
        map_index_template="part {{ ti.map_index }}",
    )
    ElasticLaunchOperator.partial(task_id="sweep", entrypoint="beside:square").expand(
        op_args=[[3], [4]]
    )


alone()
sweep_beside_gang()
