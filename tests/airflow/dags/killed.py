"""Trainings of two nodes that go on until they are told to stop, however often their tasks are
marked failed and cleared.
"""

from __future__ import annotations

import sys
from pathlib import Path

from airflow.sdk import dag

from airflow_provider.operators.elastic import ElasticLaunchOperator

_ROOT = str(Path(__file__).parents[3])
_PARAMS = {"folder": "/nowhere", "seconds": 0.001}


def fit(folder: str, seconds: str, root: str) -> int:
    """Train in steps of so many ``seconds``, and write down what this rank does."""
    sys.path.append(root)
    from tests.support.training import train_with_ddp

    return train_with_ddp(folder, seconds=float(seconds))


def _train(min_nodes: int, rdzv_conn_id: str | None) -> None:
    ElasticLaunchOperator.gang(
        task_id="train",
        nodes=2,
        min_nodes=min_nodes,
        nproc_per_node=2,
        entrypoint=fit,
        op_args=["{{ params.folder }}", "{{ params.seconds }}", _ROOT],
        env={"NODE": "{{ ti.map_index }}.{{ ti.try_number }}"},
        rdzv_conn_id=rdzv_conn_id,
        checkpoint_path="{{ params.folder }}/checkpoints",
        checkpoint_every=1000,
        grace_period=20,
        retries=0,
    )


@dag(schedule=None, params=_PARAMS)
def killed() -> None:
    """One node is enough, and trains alone while the other one is away."""
    _train(1, "etcd_tests")


@dag(schedule=None, params=_PARAMS)
def killed_alone() -> None:
    """Both are needed. They have nothing but Airflow to find each other."""
    _train(2, None)


killed()
killed_alone()
