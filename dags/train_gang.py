"""One job on several Airflow workers: a gang, whose nodes are the mapped instances of one task.

Each node averages its gradients with all others and so fits the same line. A task downstream has
what all ranks of all nodes returned. In a deployment the nodes meet at the first of them, so that
no service but Airflow is needed; with ``rdzv_conn_id="etcd_default"`` they would meet through an
etcd, and could go on without that node. ``python dags/train_gang.py`` runs the whole gang on this
machine and needs no server at all.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from airflow_provider.results import gang_results

SLOPE, OFFSET = 3.0, -1.0


@dag(schedule=None, catchup=False, tags=["elastic"])
def train_gang():
    @task.elastic(gang=2, min_nodes=1, nproc_per_node=1)
    def fit(steps: int) -> dict[str, float]:
        import torch
        import torch.distributed as dist

        from llutil.launcher import worker

        dist.init_process_group("gloo")
        torch.manual_seed(worker.rank())  # every rank sees other data
        weights = torch.zeros(2)
        for step in range(steps):
            x = torch.rand(64)
            error = weights[0] * x + weights[1] - (SLOPE * x + OFFSET)
            gradient = torch.stack([(error * x).mean(), error.mean()])
            dist.all_reduce(gradient)
            weights -= gradient / dist.get_world_size()
            worker.progress(step + 1, steps)
        dist.destroy_process_group()
        return {
            "slope": float(weights[0]),
            "offset": float(weights[1]),
            "node": worker.group_rank(),
        }

    @task
    def compare(ti: Any = None) -> dict[str, float]:
        """The line, if all ranks of all nodes have found the same one."""
        lines = {(ranks["slope"], ranks["offset"]) for ranks in gang_results("fit", ti).values()}
        if len(lines) != 1:
            raise ValueError(f"ranks disagree: {lines}")
        slope, offset = lines.pop()
        if abs(slope - SLOPE) + abs(offset - OFFSET) > 0.1:
            raise ValueError(f"found {slope} and {offset}, wanted {SLOPE} and {OFFSET}")
        return {"slope": slope, "offset": offset}

    fit(steps=200) >> compare()


gang_dag = train_gang()

if __name__ == "__main__":
    gang_dag.test()
