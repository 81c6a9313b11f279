"""A job of two ranks, one of which a person debugs."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag
def debugged():
    """As above."""

    @task.elastic(nproc_per_node=2)
    def train(made: int) -> int:
        from llutil import launcher
        from llutil.launcher import worker

        if worker.rank() == 1:
            launcher.breakpoint()
            made += 1
        return made

    train(40)


debugged()
