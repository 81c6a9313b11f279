"""A DAG file that asks for what cannot be: the results are a dict of ranks, not of outputs."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None)
def refused_outputs() -> None:
    @task.elastic(nproc_per_node=1, multiple_outputs=True)
    def several() -> dict[str, int]:
        return {"one": 1}

    several()


refused_outputs()
