"""The wheel with Airflow and without torch: Airflow finds the provider and the plugin, and a DAG
runs jobs under the interpreter of another environment, which has torch. If that is another version
of Python, it runs a script alone: functions do not travel between versions.

    python airflow_alone.py THE_OTHER_INTERPRETER

Run it with the interpreter of such an environment, with ``AIRFLOW_HOME`` set to an empty folder. It
says ``ok`` at its end.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_SCRIPT = "import os, torch; print('rank', os.environ['RANK'], 'of', torch.__version__)"

_DAG = """
import sys
from airflow.sdk import dag
from airflow_provider.operators.elastic import ElasticLaunchOperator

def rank_and_version(base):
    import os
    import torch
    return [base + int(os.environ["RANK"]), torch.__version__]

@dag(schedule=None)
def smoke():
    same = dict(nproc_per_node=2, python=sys.argv[1], retries=0)
    ElasticLaunchOperator(task_id="script", entrypoint="script_of_ranks.py", **same)
    if sys.argv[2] == "functions too":
        ElasticLaunchOperator(
            task_id="function", entrypoint=rank_and_version, op_args=[10], **same
        )

job = smoke()

if __name__ == "__main__":
    run = job.test()
    for task in run.get_task_instances():
        print("task", task.task_id, task.state, task.xcom_pull(task_ids=task.task_id))
"""


def _version(python: str) -> str:
    """The version of an interpreter, as 3.11."""
    code = "import sys; print(*sys.version_info[:2], sep='.')"
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def main(other: str) -> None:
    """Fail with an AssertionError if anything is wrong."""
    assert find_spec("torch") is None, "torch is installed here"
    airflow = Path(sys.executable).with_name("airflow")
    subprocess.run([airflow, "db", "migrate"], check=True, capture_output=True)

    from airflow.providers_manager import ProvidersManager

    providers = ProvidersManager().providers
    assert "airflow-provider-elastic-launch" in providers, sorted(providers)
    info = providers["airflow-provider-elastic-launch"].data
    kinds = {row["connection-type"] for row in info["connection-types"]}
    assert kinds == {"etcd", "zookeeper"}, kinds

    from airflow import plugins_manager

    plugins = {plugin["name"] for plugin in plugins_manager.get_plugin_info()}
    assert "elastic_launch" in plugins, (plugins, plugins_manager.get_import_errors())

    from airflow.configuration import conf

    dags = Path(conf.get("core", "dags_folder"))
    dags.mkdir(parents=True, exist_ok=True)
    file = dags / "smoke.py"
    file.write_text(_DAG)
    (dags / "script_of_ranks.py").write_text(_SCRIPT)
    same = _version(other) == _version(sys.executable)
    ran = subprocess.run(
        [sys.executable, file, other, "functions too" if same else "no functions"],
        capture_output=True,
        text=True,
        check=False,
    )
    story = ran.stdout[-3000:] + ran.stderr[-3000:]
    assert ran.returncode == 0, story
    lines = [line for line in ran.stdout.splitlines() if line.startswith("task ")]
    assert any(line.startswith("task script success") for line in lines), story
    assert "rank 1 of" in ran.stdout, story
    if same:
        (line,) = (line for line in lines if line.startswith("task function success"))
        assert "'0': [10, " in line, line
        assert "'1': [11, " in line, line
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
