"""DAGs that succeed. Their workers do next to nothing, so that a test run can afford many."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from typing import Any

import beside
import duties
from airflow.sdk import dag, task

from airflow_provider.operators.elastic import ElasticLaunchOperator


@dag(schedule=None, params={"size": 3})
def values() -> None:
    """What goes into a job and what comes out."""

    @task
    def one() -> int:
        return 20

    @task
    def double(number: int) -> int:
        return 2 * number

    upstream = one()
    mapped = double.expand(number=[1, 2, 3])

    @task.elastic(nproc_per_node=2)
    def add(first: int, many: list[int], *, run_id: str, params: dict[str, Any]) -> dict[str, Any]:
        return {
            "first": first,
            "many": many,
            "run_id": run_id,
            "size": params["size"],
            "year": beside.year(),
            "folder": beside.folder(),
            **duties.identity(),
        }

    add(upstream, mapped)

    ElasticLaunchOperator(
        task_id="classic",
        entrypoint="beside:square",
        op_args=[upstream],
        nproc_per_node=1,
    )

    ElasticLaunchOperator(
        task_id="silent",
        entrypoint="beside:square",
        op_args=[2],
        nproc_per_node=1,
        do_xcom_push=False,
    )

    @task.elastic(nproc_per_node=1)
    def who() -> dict[str, str]:
        return duties.identity()

    who()
    who.override(task_id="who_of_two", nproc_per_node=2)()


@dag(schedule=None)
def rerun() -> None:
    """A job that returns something else each time."""

    @task.elastic(nproc_per_node=2)
    def draw() -> dict[str, str]:
        return {"drawn": secrets.token_hex(8), **duties.identity()}

    draw()


@dag(schedule=None)
def second_try() -> None:
    """A job that fails in its first try, on one of its two ranks."""

    @task.elastic(nproc_per_node=2, max_restarts=0, retries=1, retry_delay=timedelta(seconds=1))
    def flaky() -> dict[str, str]:
        if os.environ["AIRFLOW_CTX_TRY_NUMBER"] == "1" and os.environ["RANK"] == "1":
            raise RuntimeError("not on the first try")
        return duties.identity()

    flaky()


@dag(schedule=None)
def sweep() -> None:
    """Three independent jobs at a time, by both ways to write it."""

    @task.elastic(nproc_per_node=1)
    def trial(rate: float, run_id: str) -> dict[str, Any]:
        duties.meet(run_id, 3, seconds=150)
        print(f"trying {rate}")
        return {"rate": rate, **duties.identity()}

    trial.expand(rate=[0.1, 0.2, 0.3])

    ElasticLaunchOperator.partial(
        task_id="square", entrypoint="beside:square", nproc_per_node=1, max_active_tis_per_dagrun=3
    ).expand(op_args=[[1], [2], [3]])


@dag(schedule=None, params={"python": "/no/such/python"})
def elsewhere() -> None:
    """A job under an interpreter that has torch but no Airflow."""

    @task.elastic(nproc_per_node=2, python="{{ params.python }}")
    def add_ranks() -> dict[str, Any]:
        import importlib.util
        import sys

        import torch

        torch.distributed.init_process_group("gloo")
        total = torch.tensor(float(torch.distributed.get_rank() + 1))
        torch.distributed.all_reduce(total)
        torch.distributed.destroy_process_group()
        return {
            "python": sys.executable,
            "airflow": importlib.util.find_spec("airflow") is not None,
            "total": total,
        }

    add_ranks()

    ElasticLaunchOperator(
        task_id="script",
        entrypoint="needs_no_airflow.py",
        op_args=["--text", "several words"],
        python="{{ params.python }}",
        nproc_per_node=1,
    )


values()
elsewhere()
rerun()
second_try()
sweep()
