"""A training with Lightning that goes on where it was: after a retry, a clear, a kill.

Two processes train a small network on handwritten digits. ``ElasticCallback`` ties Lightning's loop
to the job: progress, a checkpoint every 50 steps and whenever Airflow ends the task, and resume. So
the next try goes on after the step at which this one was stopped. Trigger it with
``seconds_a_step`` 0.1 to have time to mark it failed, and to clear it then. It needs Lightning
(``pip install lightning``, or ``pytorch-lightning``, under which name it is imported here). Run it
without any server by ``python dags/train_lightning.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

WORKERS = 2
PARAMS: dict[str, Any] = {
    "checkpoints": str(Path(tempfile.gettempdir(), "elastic-checkpoints")),
    "epochs": 4,
    "seconds_a_step": 0.0,
}


def fit(epochs: int, seconds_a_step: float) -> dict[str, float]:
    """Train on every rank, from the newest checkpoint on; what this rank knows at the end."""
    import time

    import torch
    from pytorch_lightning import LightningModule, Trainer, seed_everything
    from sklearn.datasets import load_digits
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset, random_split

    from llutil.integrations.lightning import ElasticCallback
    from llutil.launcher import worker

    class Digits(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Sequential(
                torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
            )

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            images, labels = batch
            time.sleep(seconds_a_step)
            return functional.cross_entropy(self.network(images), labels)

        def validation_step(self, batch: Any, _: int) -> None:
            images, labels = batch
            right = (self.network(images).argmax(1) == labels).float().mean()
            self.log("accuracy", right, sync_dist=True)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    torch.set_num_threads(1)
    seed_everything(0)  # all ranks split the data in the same way
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    training, held_out = random_split(
        TensorDataset(images, torch.tensor(digits.target)), [0.8, 0.2]
    )
    elastic = ElasticCallback()
    done = worker.resume()
    first = done.step if done else 0
    print(f"training begins after step {first}")
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        strategy="ddp",
        devices=worker.local_world_size(),
        num_nodes=worker.world_size() // worker.local_world_size(),
        callbacks=[elastic],
        logger=False,
        enable_checkpointing=False,  # Lightning's own, beside the job's
    )
    trainer.fit(
        Digits(),
        DataLoader(training, batch_size=32, shuffle=True),
        DataLoader(held_out, batch_size=360),
        ckpt_path=elastic.ckpt_path,
    )
    return {
        "first_step": first,
        "last_step": trainer.global_step,
        "stopped": elastic.stopped,
        "accuracy": float(trainer.callback_metrics.get("accuracy", 0.0)),
    }


@dag(schedule=None, catchup=False, tags=["elastic"], params=PARAMS)
def train_lightning():
    @task.elastic(
        nproc_per_node=WORKERS,
        checkpoint_path="{{ params.checkpoints }}",
        checkpoint_every=50,
        retries=2,
    )
    def train(params: dict[str, Any]) -> dict[str, float]:
        return fit(params["epochs"], params["seconds_a_step"])

    train()


lightning_dag = train_lightning()

if __name__ == "__main__":
    lightning_dag.test()
