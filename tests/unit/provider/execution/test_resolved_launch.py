"""What Airflow's UI shows of the launch that an operator's parameters have come to."""

from __future__ import annotations

import datetime as dt
import json
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

from airflow_provider.execution import task_run
from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.parameters.rendezvous import RendezvousSettings

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def rendered(tmp_path):
    """Renders a task with these parameters; returns what Airflow's UI shows of it."""

    def make(task, map_index=-1):
        ti = SimpleNamespace(
            id="7", dag_id="d", task_id="t", run_id="r", map_index=map_index, try_number=2
        )
        dag = SimpleNamespace(fileloc=str(tmp_path / "dag.py"))
        dag_run = SimpleNamespace(clear_number=0, run_after=NOW, start_date=NOW)
        context = {"dag": dag, "dag_run": dag_run, "ti": ti, "run_id": "r"}
        fields, env = task.template_fields, task.get_template_env()
        task._do_render_template_fields(task, fields, context, env, set())
        return _serialize_rendered_fields(task)

    return make


def test_a_task_shows_its_run_id_and_processes(rendered):
    with DAG("d"):
        task = ElasticLaunchOperator(
            task_id="t", entrypoint="true", nproc_per_node="{{ 2 }}", checkpoint_path="/shared"
        )
    launch = rendered(task)["launch"]
    assert launch.pop("rendezvous_id").startswith("d.t.r.t2.a1-")
    assert launch == {
        "nodes": "1",
        "processes_per_node": "2",
        "start_method": "forkserver",
        "max_restarts": 3,
        "checkpoint_path": "/shared",
    }


@pytest.mark.parametrize("native", [False, True])
def test_a_node_of_a_gang_shows_where_all_meet_and_no_secret(rendered, monkeypatch, native):
    settings = RendezvousSettings("zeus-adapter", "zk:2181", {"password": "hush", "user": "me"})
    monkeypatch.setattr(task_run, "connection_settings", lambda _: settings)
    with DAG("d", render_template_as_native_obj=native):
        gang = ElasticLaunchOperator.gang(
            task_id="t", nodes=3, min_nodes=2, entrypoint="true", rdzv_conn_id="zk"
        )
    shown = rendered(gang.unmap({"node_index": 1}), map_index=1)
    launch = shown["launch"]
    assert launch.pop("rendezvous_id").startswith("d.t.r-")
    assert launch == {
        "nodes": "2:3",
        "node": 1,
        "processes_per_node": 1,
        "backend": "zeus-adapter",
        "endpoint": "zk:2181",
        "connection": "zk",
        "start_method": "forkserver",
        "max_restarts": 3,
    }
    assert "hush" not in json.dumps(shown)


def test_parameters_that_contradict_each_other_are_shown_as_that(rendered, monkeypatch):
    with DAG("d"):
        task = ElasticLaunchOperator(task_id="t", entrypoint="true", rdzv_conn_id="{{ 'zk' }}")
    task.rdzv_endpoint = "zk:2181"
    assert "give one of them" in rendered(task)["launch"]["problem"]
