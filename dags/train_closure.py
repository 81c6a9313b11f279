"""``@task.elastic`` on a function of the DAG file itself, which uses names from around it.

The function, the helper that it calls and the values that it closes over are sent to the workers by
value; they need not be installed anywhere. ``run_id`` comes from Airflow, because the function
names it.
"""

from __future__ import annotations

from airflow.sdk import dag, task

TARGET = 42.0


def distance(value: float) -> float:
    return (value - TARGET) ** 2


@dag(schedule=None, catchup=False, tags=["elastic"])
def train_closure():
    learning_rate = 0.1

    @task.elastic(nproc_per_node=2, max_restarts=0)
    def search(steps: int, run_id: str) -> dict[str, float | str]:
        """Find the number that is nearest to TARGET, each rank from another start, and average."""
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo")
        rank = dist.get_rank()
        value = torch.tensor(float(rank * 100), requires_grad=True)
        for _ in range(steps):
            (gradient,) = torch.autograd.grad(distance(value), value)
            with torch.no_grad():
                value -= learning_rate * gradient
        average = value.detach()
        dist.all_reduce(average)
        average /= dist.get_world_size()
        dist.destroy_process_group()
        return {"rank": rank, "found": float(average), "run_id": run_id}

    @task
    def check(ranks: dict[str, dict[str, float | str]]) -> None:
        for result in ranks.values():
            print(result)
            if abs(float(result["found"]) - TARGET) > 0.01:
                raise ValueError(f"rank {result['rank']} found {result['found']}, not {TARGET}")

    check(search(steps=60))


closure_dag = train_closure()

if __name__ == "__main__":
    closure_dag.test()
