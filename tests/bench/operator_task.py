"""A task of the operator beside torchrun in a BashOperator, in a real Airflow with LocalExecutor
and PostgreSQL.

Workers import torch and do nothing. A figure is how long Airflow says that the task has run, from
its start to its end: what Airflow itself takes to schedule a task, and to fork a process for it, is
the same for both and is no part of it. Both sides run in turn. The first task of each side is left
out: it finds nothing in the page cache, and Airflow's workers have yet to import what they need.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tests.airflow.client import Client
from tests.bench._bench_airflow import bench_airflow
from tests.bench.report.measurement import Goal, Measurement, Sample

__all__ = ["measure"]

_SIZES = (1, 2)
_RUNS = 5
_SIDES = ("torchrun", "ours")


def measure() -> Iterator[Measurement]:
    """Tasks with so many workers."""
    dag_ids = [f"nothing_{side}_{count}" for side in _SIDES for count in _SIZES]
    with bench_airflow(*dag_ids) as server:
        for count in _SIZES:
            times: dict[str, list[float]] = {side: [] for side in _SIDES}
            for _ in range(_RUNS + 1):
                for side in _SIDES:
                    times[side].append(_seconds(server.client, f"nothing_{side}_{count}"))
            yield Measurement(
                name="task",
                case=str(count),
                what=f"a task that imports torch in each rank and ends, workers: {count}",
                unit="s",
                ours=Sample.of(times["ours"][1:]),
                peer=Sample.of(times["torchrun"][1:]),
                peer_name="torchrun in a BashOperator",
                goal=Goal("ratio", 4),
            )


def _seconds(client: Client, dag_id: str) -> float:
    """How long the one task of a run of this DAG ran."""
    facts = client.trigger(dag_id).finish(seconds=120).task("job").facts()
    began, ended = (datetime.fromisoformat(facts[name]) for name in ("start_date", "end_date"))
    return (ended - began).total_seconds()
