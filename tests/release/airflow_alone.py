"""The wheel with Airflow and without torch: Airflow finds the provider and the plugin, and a DAG
runs a job under the interpreter of another environment, which has torch.

    python airflow_alone.py THE_OTHER_INTERPRETER

Run it with the interpreter of such an environment, with ``AIRFLOW_HOME`` set to an empty folder. It
says ``ok`` at its end.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_DAG = """
from airflow.sdk import dag
from airflow_provider.operators.elastic import ElasticLaunchOperator

def rank_and_version(base):
    import os
    import torch
    return [base + int(os.environ["RANK"]), torch.__version__]

@dag(schedule=None)
def smoke():
    ElasticLaunchOperator(
        task_id="launch", entrypoint=rank_and_version, op_args=[10], nproc_per_node=2,
        python=%r, retries=0,
    )

job = smoke()

if __name__ == "__main__":
    run = job.test()
    (task,) = run.get_task_instances()
    print("state", task.state, "value", task.xcom_pull(task_ids="launch"))
"""


def main(other: str) -> None:
    """Fail with an AssertionError if anything is wrong."""
    assert find_spec("torch") is None, "torch is installed here"
    airflow = Path(sys.executable).with_name("airflow")
    subprocess.run([airflow, "db", "migrate"], check=True, capture_output=True)

    from airflow.providers_manager import ProvidersManager

    providers = ProvidersManager().providers
    assert "airflow-provider-elastic-launch" in providers, sorted(providers)
    hooks = ProvidersManager().hooks
    assert {"etcd", "zookeeper"} <= set(hooks), sorted(hooks)

    from airflow import plugins_manager

    plugins = {plugin["name"] for plugin in plugins_manager.get_plugin_info()}
    assert "elastic_launch" in plugins, (plugins, plugins_manager.get_import_errors())

    from airflow.configuration import conf

    dags = Path(conf.get("core", "dags_folder"))
    dags.mkdir(parents=True, exist_ok=True)
    file = dags / "smoke.py"
    file.write_text(_DAG % other)
    ran = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    story = ran.stdout[-3000:] + ran.stderr[-3000:]
    assert ran.returncode == 0, story
    last = (ran.stdout.strip().splitlines() or [""])[-1]
    assert last.startswith("state success value"), story
    assert "'0': [10, " in last, last
    assert "'1': [11, " in last, last
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
