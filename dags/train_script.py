"""An ordinary training script as a task: unchanged, with its arguments as on torchrun's command
line.
"""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider.operators.elastic import ElasticLaunchOperator


@dag(schedule=None, catchup=False, tags=["elastic"], params={"epochs": 20})
def train_script():
    ElasticLaunchOperator(
        task_id="train",
        entrypoint="scripts/train_plain.py",  # relative to this file
        op_args=["--epochs", "{{ params.epochs }}", "--verbose"],
        nproc_per_node=2,
    )


script_dag = train_script()

if __name__ == "__main__":
    script_dag.test()
