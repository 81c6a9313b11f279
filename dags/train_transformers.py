"""A training with Transformers that goes on where it was: after a retry, a clear, a kill.

Two processes teach a small BERT, made from a configuration with random weights, to tell sequences
whose first token is the greatest from others. ``ElasticCallback`` ties the Trainer's loop to the
job: progress, a checkpoint every 50 steps and whenever Airflow ends the task, and resume. So the
next try goes on after the step at which this one was stopped. Trigger it with ``seconds_a_step``
0.1 to have time to mark it failed, and to clear it then. It needs Transformers and Accelerate
(``pip install transformers accelerate``). Run it without any server by
``python dags/train_transformers.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

WORKERS = 2
PARAMS: dict[str, Any] = {
    "checkpoints": str(Path(tempfile.gettempdir(), "elastic-checkpoints")),
    "epochs": 2,
    "seconds_a_step": 0.0,
}


def fit(epochs: int, seconds_a_step: float) -> dict[str, float]:
    """Train on every rank, from the newest checkpoint on; what this rank knows at the end."""
    import time

    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from llutil.integrations.transformers import ElasticCallback
    from llutil.launcher import worker

    class Training(Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            time.sleep(seconds_a_step)
            return super().training_step(*args, **kwargs)

    def examples(count: int) -> list[dict[str, Any]]:
        tokens = torch.randint(0, 32, (count, 4))
        labels = (tokens.argmax(1) == 0).long()
        return [
            {"input_ids": row, "labels": label}
            for row, label in zip(tokens, labels.tolist(), strict=True)
        ]

    torch.set_num_threads(1)
    set_seed(0)
    training, held_out = examples(1600), examples(400)
    small = BertConfig(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=4,
    )
    with tempfile.TemporaryDirectory() as output:
        trainer = Training(
            model=BertForSequenceClassification(small),
            args=TrainingArguments(
                output_dir=output,
                num_train_epochs=epochs,
                per_device_train_batch_size=16,
                per_device_eval_batch_size=200,
                learning_rate=0.01,
                eval_strategy="epoch",
                save_strategy="no",  # the Trainer's own, beside the job's
                logging_steps=50,
                report_to=[],
                use_cpu=True,
            ),
            train_dataset=training,
            eval_dataset=held_out,
            compute_metrics=lambda found: {
                "accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())
            },
        )
        elastic = ElasticCallback(trainer)
        done = worker.resume()
        first = done.step if done else 0
        print(f"training begins after step {first}")
        trainer.train(resume_from_checkpoint=elastic.resume_from_checkpoint)
    accuracy = [
        entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry
    ]
    return {
        "first_step": first,
        "last_step": trainer.state.global_step,
        "stopped": elastic.stopped,
        "accuracy": accuracy[-1] if accuracy else 0.0,
    }


@dag(schedule=None, catchup=False, tags=["elastic"], params=PARAMS)
def train_transformers():
    @task.elastic(
        nproc_per_node=WORKERS,
        checkpoint_path="{{ params.checkpoints }}",
        checkpoint_every=50,
        retries=2,
    )
    def train(params: dict[str, Any]) -> dict[str, float]:
        return fit(params["epochs"], params["seconds_a_step"])

    train()


transformers_dag = train_transformers()

if __name__ == "__main__":
    transformers_dag.test()
