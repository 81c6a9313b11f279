"""An installation without kazoo: whoever wants a ZooKeeper is told of the extra that brings it,
wherever he asks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_provider.operators.elastic import ElasticLaunchOperator
from tests.support.airflow_task import run_task

pytestmark = pytest.mark.launch

_WITHOUT = str(Path(__file__).parents[1] / "support/stub_modules/no_kazoo")
_TOLD = "needs the package kazoo: install the extra 'zookeeper'"
_WITHIN = 120.0  # seconds, of which most are imports of torch
_CALL = """
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
config = LaunchConfig(
    min_nodes=1,
    max_nodes=2,
    nproc_per_node=1,
    rdzv_backend="zeus-adapter",
    rdzv_endpoint="127.0.0.1:1",
)
try:
    launch_agent(config, "true", [])
except Exception as error:
    print(type(error).__name__, error)
"""
_BUTTON = """
from airflow_provider.hooks.zookeeper import ZooKeeperHook
print(*ZooKeeperHook("c").test_connection())
"""
_TORCHRUN = (
    "--nnodes=1:2 --rdzv-backend=zeus-adapter --rdzv-endpoint=127.0.0.1:1 --rdzv-id=x "
    "--no-python true"
)
_ASKED = {
    "launch_agent": (["-c", _CALL], 0),
    "the button": (["-c", _BUTTON], 0),
    "torchrun": (["-m", "torch.distributed.run", *_TORCHRUN.split()], 1),
}


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """Airflow's task runner sets a handler for SIGTERM and leaves it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_who_asks_for_zookeeper_without_kazoo_is_told_of_the_extra(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": _WITHOUT,
        "AIRFLOW_CONN_C": json.dumps({"conn_type": "zookeeper", "host": "127.0.0.1:1"}),
        "AIRFLOW_HOME": str(tmp_path),
    }
    started = {
        name: subprocess.Popen(
            [sys.executable, "-W", "ignore", *words],
            env=env,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, (words, _) in _ASKED.items()
    }
    told = {name: process.communicate(timeout=_WITHIN)[0] for name, process in started.items()}
    for name, (_, status) in _ASKED.items():
        assert _TOLD in told[name], told[name]
        assert started[name].returncode == status
    assert told["launch_agent"].startswith("ConfigError ")
    assert told["the button"].startswith("False ")


def test_a_task_without_kazoo_fails_for_good_and_tells_of_the_extra(tmp_path: Path) -> None:
    with DAG("job") as dag:
        task = ElasticLaunchOperator(
            task_id="train",
            entrypoint="true",
            rdzv_id="x",
            nnodes="1:2",
            rdzv_backend="zeus-adapter",
            env={"PYTHONPATH": _WITHOUT},
            rdzv_endpoint="127.0.0.1:1",
        )
    dag.fileloc = str(tmp_path / "dag.py")
    done = run_task(task)
    assert done.state == "failed"
    assert _TOLD in str(done.error)
