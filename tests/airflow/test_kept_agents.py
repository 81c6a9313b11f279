"""Tasks of a host that keeps agents ready, under LocalExecutor."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from llutil.system.job_mark import MARK_VARIABLE
from tests.airflow.client import wait
from tests.airflow.deployments import local
from tests.airflow.server import Airflow, airflow
from tests.airflow.services import Services

pytestmark = pytest.mark.airflow

_IDLE = 600
"""Seconds for which agents are kept ready: many more than lie between two short runs."""
_DAG = """
import os
from airflow.sdk import dag, task

@dag(schedule=None)
def kept():
    @task.elastic(nproc_per_node=2)
    def train():
        import torch
        return [int(os.environ["RANK"]), torch.__version__]

    train()

kept()
"""


@pytest.fixture(scope="module")
def server(beside: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A deployment that keeps agents ready."""
    dags = tmp_path_factory.mktemp("dags")
    (dags / "kept.py").write_text(_DAG)
    deployment = local(2, beside.database("kept", like="new"))
    kept = {"AIRFLOW__ELASTIC_LAUNCH__KEEP_AGENTS_READY": str(_IDLE)}
    deployment = replace(deployment, settings={**deployment.settings, **kept})
    home = Path(tempfile.mkdtemp(prefix="airflow-kept-"))
    with airflow(home, {"kept": dags}, remove=True, deployment=deployment, migrated=True) as found:
        yield found


def _agent_servers(server: Airflow) -> list[psutil.Process]:
    """Its agent servers; they have the temporary folder of its tasks in their command line."""
    place = f"{server.temporary}/llutil-{os.getuid()}/"
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "llutil.agent_server" in words and any(word.startswith(place) for word in words):
            found.append(process)
    return found


def test_the_second_task_has_the_servers_agent_and_nothing_is_left_after_the_servers_end(
    server: Airflow,
) -> None:
    server.client.await_dags("kept")

    def serving() -> bool | None:
        return any(server.temporary.glob("llutil-*/*.agents")) or None

    first = server.client.trigger("kept").finish("success").task("train")
    wait("a server that serves", 60, serving, first.tail)
    second = server.client.trigger("kept").finish("success").task("train")
    assert "is a fork of the agent server" not in first.text()
    (one,) = _agent_servers(server)
    assert f"is a fork of the agent server, process {one.pid}" in second.text()
    assert first.xcoms()["return_value"] == second.xcoms()["return_value"]
    assert [rank for rank, _ in second.xcoms()["return_value"].values()] == [0, 1]
    # It ends with the scheduler, whose executor's process has run the task.
    words = one.cmdline()
    watched = {int(word.partition(":")[0]) for word in words[words.index("--watch") + 1 :]}
    components = {child.pid for child in psutil.Process(server.supervisor.pid).children()}
    assert watched & components
    # No agent, rank or guardian is left, but the server itself; and then not even that. (It ends in
    # this way when it has been idle for its time, too.)
    assert server.processes(MARK_VARIABLE) == []
    assert "AIRFLOW_CTX_DAG_ID" not in one.environ()
    one.terminate()
    wait("its end", 60, lambda: not one.is_running() or None, second.tail)
    assert _agent_servers(server) == []
    assert not list(server.temporary.glob("llutil*"))
