"""Parsing a DAG stays cheap, and so does loading the plugin: no module of torch, of a store's
client, or of the agent is imported for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DAGS = sorted((Path(__file__).parents[3] / "dags").glob("*.py"))

# Runs in an interpreter of its own, where nothing of the test run has been imported.
PROGRAM = """
import json, runpy, sys
import airflow.sdk
airflows = set(sys.modules)
import airflow_provider.operators.elastic
import airflow_provider.decorators.elastic
import airflow_provider.hooks.agent
import airflow_provider.hooks.etcd
import airflow_provider.hooks.zookeeper
import airflow_provider.kubernetes
import airflow_provider.plugins.elastic_plugin
import airflow_provider.results.result_readers
providers = set(sys.modules) - airflows
for path in json.loads(sys.argv[1]):
    runpy.run_path(path, run_name="a_dag_file")
print("MODULES", json.dumps([sorted(providers), sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def imported():
    """What importing the provider adds to airflow.sdk, and all that is imported after parsing each
    DAG file.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps([str(path) for path in DAGS])],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).parents[3],
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("MODULES ")]
    return json.loads(line.removeprefix("MODULES "))


def rooms(modules):
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    "package", ["torch", "grpc", "kazoo", "etcd3", "cloudpickle", "kubernetes", "sklearn"]
)
def test_parsing_every_dag_file_imports_no(package, imported):
    assert package not in rooms(imported[1])


def test_importing_the_provider_adds_nothing_but_itself_plain_values_and_the_standard_library(
    imported,
):
    providers, _ = imported
    foreign = rooms(providers) - set(sys.stdlib_module_names) - {"airflow_provider", "llutil"}
    assert foreign <= {"airflow"}, foreign
    assert {name for name in providers if name.startswith("airflow.")} <= {
        # What @task.elastic is made with, and what an operator imports from it.
        "airflow.sdk.bases.decorator",
        "airflow.sdk.bases.hook",
        "airflow.sdk.bases.operatorlink",
        "airflow.sdk.exceptions",
        "airflow.sdk.definitions._internal.decorators",
        "airflow.sdk.definitions.retry_policy",
    }


def test_the_provider_imports_no_room_that_runs_jobs(imported):
    providers, _ = imported
    for room in ("agent", "agent_process", "rendezvous", "ledgers"):
        assert not [name for name in providers if f"{name}.".startswith(f"llutil.{room}.")]


def test_there_are_dag_files_to_parse():
    assert [path.name for path in DAGS] == [
        "train_closure.py",
        "train_digits.py",
        "train_gang.py",
        "train_lightning.py",
        "train_resume.py",
        "train_script.py",
        "train_transformers.py",
    ]
