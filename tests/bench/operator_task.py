"""A task of the operator beside torchrun in a BashOperator, in a real Airflow with LocalExecutor
and PostgreSQL.

Workers import torch and do nothing. A figure is how long Airflow says that the task has run, from
its start to its end: what Airflow itself takes to schedule a task, and to fork a process for it, is
the same for all and is no part of it. The sides run in turn: torchrun, ours, and ours on a host
that keeps agents ready (``[elastic_launch] keep_agents_ready``). The first task of each side is
left out: it finds nothing in the page cache, Airflow's workers have yet to import what they need,
and no agent is ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tests.airflow.client import Client, wait
from tests.airflow.server import Airflow
from tests.bench._bench_airflow import bench_airflow
from tests.bench.report.measurement import Goal, Measurement, Sample

__all__ = ["measure"]

_SIZES = (1, 2)
_RUNS = 5
_SIDES = ("torchrun", "ours", "kept")
_KEPT = {"AIRFLOW__ELASTIC_LAUNCH__KEEP_AGENTS_READY": "600"}
_READY = 60.0
"""Seconds for an agent to be ready after a host's first task."""


def measure() -> Iterator[Measurement]:
    """Tasks with so many workers."""
    dag_ids = [f"nothing_{side}_{count}" for side in _SIDES for count in _SIZES]
    with bench_airflow(*dag_ids, settings=_KEPT) as server:
        for count in _SIZES:
            times: dict[str, list[float]] = {side: [] for side in _SIDES}
            for _ in range(_RUNS + 1):
                for side in _SIDES:
                    times[side].append(_seconds(server.client, f"nothing_{side}_{count}"))
                _await_ready(server)
            workers = f"imports torch in each rank and ends, workers: {count}"
            for name, side, what, goal in (
                ("task", "ours", f"a task that {workers}", None),
                (
                    "task-kept",
                    "kept",
                    f"where agents are kept ready, a task that {workers}",
                    Goal("ratio", 4),
                ),
            ):
                yield Measurement(
                    name=name,
                    case=str(count),
                    what=what,
                    unit="s",
                    ours=Sample.of(times[side][1:]),
                    peer=Sample.of(times["torchrun"][1:]),
                    peer_name="torchrun in a BashOperator",
                    goal=goal,
                )


def _await_ready(server: Airflow) -> None:
    """Wait until a process listens that forks agents."""

    def listens() -> bool | None:
        return any(server.temporary.glob("llutil-*/*.agents")) or None

    wait("an agent that is ready", _READY, listens, lambda: "")


def _seconds(client: Client, dag_id: str) -> float:
    """How long the one task of a run of this DAG ran."""
    facts = client.trigger(dag_id).finish(seconds=120).task("job").facts()
    began, ended = (datetime.fromisoformat(facts[name]) for name in ("start_date", "end_date"))
    return (ended - began).total_seconds()
