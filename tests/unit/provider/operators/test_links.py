from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.operators.links import push_links
from llutil.errors import ConfigError

LINKS = {"TensorBoard": "https://tb.example.com/?run={{ run_id }}", "Up": "/up"}
TI = SimpleNamespace(
    dag_id="d",
    task_id="t",
    run_id="r",
    map_index=-1,
    log_url="https://airflow.example.com/x/dags/d/runs/r/tasks/t?try_number=2",
)


def train():
    pass


@pytest.mark.parametrize("is_gang", [False, True])
def test_a_stored_dag_names_the_links_of_each_task(is_gang):
    with DAG("d") as dag:
        if is_gang:
            ElasticLaunchOperator.gang(task_id="t", nodes=2, entrypoint=train, links=LINKS)
        else:
            ElasticLaunchOperator(task_id="t", entrypoint=train, links=LINKS)
    stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    task = DagSerialization.from_dict(stored).get_task("t")
    assert sorted(task.extra_links) == ["Ranks and their logs", "TensorBoard", "Up"]


def test_links_are_rendered_and_shown_while_the_task_runs(monkeypatch):
    pushed = {}
    monkeypatch.setattr(
        BaseXCom, "set", lambda key, value, **where: pushed.update({key: (value, where)})
    )
    task = ElasticLaunchOperator(task_id="t", entrypoint=train, links={**LINKS, "None": "/"})
    task.links = {"TensorBoard": "https://tb.example.com/?run=r", "Up": "/up", "None": ""}
    push_links(task, {"ti": TI}, logging.getLogger())
    where = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1}
    assert pushed == {
        "_link_elastic_ranks": (
            "https://airflow.example.com/x/dags/d/runs/r/tasks/t/plugin/elastic",
            where,
        ),
        "_link_elastic_TensorBoard": ("https://tb.example.com/?run=r", where),
        "_link_elastic_Up": ("/up", where),
    }


def test_a_link_that_airflow_refuses_costs_the_job_nothing(monkeypatch, caplog):
    def refuse(*_args, **_kwargs):
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    monkeypatch.setattr(BaseXCom, "set", refuse)
    task = ElasticLaunchOperator(task_id="t", entrypoint=train)
    push_links(task, {"ti": TI}, logging.getLogger())
    assert "links are shown at its end only" in caplog.text


@pytest.mark.parametrize(
    ("links", "problem"),
    [
        (["https://tb"], "wanted a dict of names and URLs"),
        ({"": "https://tb"}, "has the name ''"),
        ({"TensorBoard": "javascript:alert(1)"}, "wanted a URL that begins with http://"),
        ({"TensorBoard": 6006}, "has 6006 for 'TensorBoard'"),
    ],
)
def test_what_is_no_link_does_not_parse(links, problem):
    with pytest.raises(ConfigError, match="links") as caught:
        ElasticLaunchOperator(task_id="t", entrypoint=train, links=links)
    assert problem in str(caught.value)
