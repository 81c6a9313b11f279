"""The tasks of the benchmarks in a real Airflow, each in a DAG of its own: with torchrun in a
BashOperator, and with ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from airflow_provider.operators.elastic import ElasticLaunchOperator

TORCHRUN = f"{Path(sys.executable).with_name('torchrun')} --standalone"
SCRIPTS = Path(__file__).with_name("scripts")
# Without it, torch 2.13 gives ranks that torchrun has started again the store of those before them:
# gloo finds addresses of processes that are gone there, and never connects.
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
FOLDER = "{{ dag_run.conf['folder'] }}"

for count in (1, 2):
    with DAG(f"nothing_torchrun_{count}"):
        BashOperator(
            task_id="job",
            bash_command=f"{TORCHRUN} --nproc-per-node {count} {SCRIPTS}/nothing.py",
        )
    # The variable has no effect beside TMPDIR. But Python would read it at its start, so an agent
    # that has it is always started afresh.
    for side, env in (("ours", {"TEMP": "/tmp"}), ("kept", None)):
        with DAG(f"nothing_{side}_{count}"):
            ElasticLaunchOperator(
                task_id="job", entrypoint=f"{SCRIPTS}/nothing.py", nproc_per_node=count, env=env
            )

with DAG("training_torchrun"):
    BashOperator(
        task_id="job",
        bash_command=(
            f"{TORCHRUN} --nproc-per-node 2 --max-restarts 1000 "
            f"{SCRIPTS}/training.py {FOLDER} plain"
        ),
        env=OWN_STORE,
        append_env=True,
    )
with DAG("training_ours"):
    ElasticLaunchOperator(
        task_id="job",
        entrypoint=f"{SCRIPTS}/training.py",
        op_args=[FOLDER, "elastic"],
        nproc_per_node=2,
        max_restarts=1000,
        checkpoint_path=f"{FOLDER}/checkpoints",
        checkpoint_every=250,
    )
