"""Jobs that go on until somebody stops them by their tasks' state, and save when they are told."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, dag, task

STEPS = 100_000


def work() -> dict[str, Any]:
    """Steps without end, a checkpoint now and then: where this rank began, and where it ended."""
    from llutil.launcher import worker

    done = worker.resume()
    first = int(Path(done.path, f"{worker.rank()}").read_text()) if done else 0
    print(f"rank {worker.rank()} begins after step {first}", flush=True)
    step = first
    while step < STEPS:
        step += 1
        time.sleep(0.02)
        todo = worker.step(step, STEPS, loss=1 / step)
        if todo.checkpoint:
            with worker.checkpoint(step) as folder:
                Path(folder, f"{worker.rank()}").write_text(str(step))
        if todo.stop:
            break
    return {"first": first, "last": step, "try_number": os.environ["AIRFLOW_CTX_TRY_NUMBER"]}


@dag(schedule=None, params={"folder": "/nowhere"})
def steered() -> None:
    """One node of two ranks."""

    @task.elastic(
        nproc_per_node=2,
        checkpoint_path="{{ params.folder }}",
        grace_period=20,
        retries=0,
        outlets=[Asset("steered_weights")],
        links={"TensorBoard": "https://tb.example.com/?run={{ dag_run.run_id }}"},
    )
    def train() -> dict[str, Any]:
        return work()

    train()


@dag(schedule=None, params={"folder": "/nowhere"})
def steered_gang() -> None:
    """Two nodes, which have nothing but Airflow to find each other."""

    @task.elastic(
        gang=2,
        checkpoint_path="{{ params.folder }}",
        checkpoint_every=50,
        grace_period=20,
        retries=1,
        retry_delay=timedelta(seconds=1),
    )
    def train() -> dict[str, Any]:
        return work()

    train()


@dag(schedule=None, params={"folder": "/nowhere"})
def seen() -> None:
    """Two nodes of two ranks, which a person looks at; the first failure ends it."""

    @task.elastic(
        gang=2,
        nproc_per_node=2,
        checkpoint_path="{{ params.folder }}",
        max_restarts=0,
        grace_period=5,
        retries=0,
    )
    def train() -> dict[str, Any]:
        return work()

    train()


steered()
seen()
steered_gang()
