from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.operators.links import UserLink, push_links
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
        ({"TensorBoard": 6006}, "has a value of type int for 'TensorBoard'"),
    ],
)
def test_what_is_no_link_does_not_parse(links, problem):
    with pytest.raises(ConfigError, match="links") as caught:
        ElasticLaunchOperator(task_id="t", entrypoint=train, links=links)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "links", ["{'TensorBoard': '/tb'}", ["/tb"], 7, {"TensorBoard": "javascript:alert(1)"}]
)
def test_links_that_came_to_no_links_are_not_shown(monkeypatch, links):
    pushed = []
    monkeypatch.setattr(BaseXCom, "set", lambda key, *_args, **_kwargs: pushed.append(key))
    task = ElasticLaunchOperator(task_id="t", entrypoint=train, links="{{ var.json.links }}")
    assert [link.name for link in task.operator_extra_links] == ["Ranks and their logs"]
    task.links = links
    push_links(task, {"ti": TI}, logging.getLogger())
    assert pushed == ["_link_elastic_ranks"]
    task.links = "{'TensorBoard': '/tb'}"
    assert UserLink("TensorBoard").get_link(task, ti_key=TI) == ""


def test_links_of_mapped_tasks_that_are_not_known_yet_have_no_names():
    with DAG("d"):
        links = BaseOperator(task_id="up").output
        mapped = ElasticLaunchOperator.partial(task_id="t", entrypoint=train, links=links)
        task = mapped.expand(op_args=[[1]])
    shown = task.operator_extra_links.__get__(task)  # as Airflow reads them of a mapped task (3.3)
    assert [link.name for link in shown] == ["Ranks and their logs"]
