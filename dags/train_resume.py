"""Training that goes on where it was: after a retry, a clear, a kill, or on another worker.

Two processes train a small network on handwritten digits. ``worker.step`` ends each step: it shows
progress, and says what all ranks do now. A checkpoint is saved every 100 steps and whenever Airflow
ends the task. The next try of the task, or the task once it is cleared in the middle of its work,
goes on from the newest one. A task that has succeeded and is cleared begins afresh.

While it runs, set the key ``control`` in the task's state (its tab in the UI, or the REST API) to
``pause``, ``resume``, ``checkpoint`` or ``stop``. Trigger it with ``seconds_a_step`` 0.1 to have
time for that. All workers must share the folder ``checkpoints``. Run it without any server by
``python dags/train_resume.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

WORKERS = 2
PARAMS: dict[str, Any] = {
    "checkpoints": str(Path(tempfile.gettempdir(), "elastic-checkpoints")),
    "epochs": 20,
    "seconds_a_step": 0.0,
}


def fit(epochs: int, seconds_a_step: float) -> dict[str, float]:
    """Train on every rank, from the newest checkpoint on; what this rank knows at the end."""
    import time

    import torch
    import torch.distributed as dist
    from sklearn.datasets import load_digits
    from torch.nn import functional
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, TensorDataset

    from llutil.launcher import worker
    from llutil.launcher.data import ElasticSampler

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    held_out, training = order[:360], order[360:]
    dataset = TensorDataset(images[training], labels[training])
    sampler = ElasticSampler(dataset, batch_size=32)
    network = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)

    done = worker.resume()
    if done:
        saved = torch.load(Path(done.path, "train.pt"))
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        sampler.load_state_dict(saved["sampler"])
    first = step = done.step if done else 0
    print(f"training begins after step {first}")

    model = DistributedDataParallel(network)
    total = epochs * -(-len(dataset) // (32 * dist.get_world_size()))
    stopped = False
    for epoch in range(sampler.epoch, epochs):
        sampler.set_epoch(epoch)
        for batch, wanted in DataLoader(dataset, batch_sampler=sampler):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(batch), wanted)
            loss.backward()
            optimizer.step()
            sampler.advance()
            step += 1
            time.sleep(seconds_a_step)
            todo = worker.step(step, total, loss=loss.item())
            if todo.checkpoint:
                with worker.checkpoint(step) as folder:
                    if worker.rank() == 0:  # all ranks have the same model
                        state = {
                            "network": network.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "sampler": sampler.state_dict(),
                        }
                        torch.save(state, Path(folder, "train.pt"))
            if todo.stop:
                stopped = True
                break
        if stopped:
            break

    with torch.no_grad():
        right = (network(images[held_out]).argmax(1) == labels[held_out]).float().mean()
    del model  # before its process group: freed later, it may wait for ever (torch 2.13)
    dist.destroy_process_group()
    return {"first_step": first, "last_step": step, "of": total, "accuracy": float(right)}


@dag(schedule=None, catchup=False, tags=["elastic"], params=PARAMS)
def train_resume():
    @task.elastic(
        nproc_per_node=WORKERS,
        checkpoint_path="{{ params.checkpoints }}",
        checkpoint_every=100,
        retries=2,
    )
    def train(params: dict[str, Any]) -> dict[str, float]:
        return fit(params["epochs"], params["seconds_a_step"])

    @task
    def report(ranks: dict[str, dict[str, float]]) -> dict[str, float]:
        """What the ranks have, if they have the same."""
        first, *others = ranks.values()
        if any(one != first for one in others):
            raise ValueError(f"ranks disagree: {ranks}")
        print(f"steps {first['first_step'] + 1} to {first['last_step']} of {first['of']}")
        return first

    report(train())


resume_dag = train_resume()

if __name__ == "__main__":
    resume_dag.test()
