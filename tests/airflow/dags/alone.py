"""Gangs without a connection, whose node 0 serves the ledger: with no service but Airflow. Their
workers do next to nothing.
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
    """Goes on, with whoever is there, until it is let go."""

    @task.elastic(
        gang=2,
        min_nodes=1,
        grace_period=5,
        retries=3,
        retry_delay=timedelta(seconds=1),
        rdzv_configs={"timeout": 120, "last_call_timeout": 60, "lease_ttl": 5},
    )
    def meet(run_id: str) -> dict[str, str]:
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo", timeout=timedelta(seconds=30))
        print(f"rank {os.environ['RANK']} in a world of {os.environ['WORLD_SIZE']}", flush=True)
        done = torch.zeros(1)
        while not done:
            done += flag(run_id).exists()
            dist.all_reduce(done)
            time.sleep(0.1)
        dist.destroy_process_group()
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
