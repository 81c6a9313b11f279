"""``@task.elastic`` in a DAG file."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider.decorators.elastic import elastic_task
from airflow_provider.operators.elastic import ElasticLaunchOperator
from llutil.errors import ConfigError


def train(epochs: int, run_id: str) -> dict[str, int]:
    """Trains."""
    return {"epochs": epochs}


def test_airflow_finds_it_by_its_name():
    with DAG("d"):
        operator = task.elastic(nproc_per_node=2)(train)(epochs=5).operator
    assert isinstance(operator, ElasticLaunchOperator)
    assert operator.operator_name == "@task.elastic"
    assert operator.function is train
    assert (operator.nproc_per_node, operator.op_kwargs) == (2, {"epochs": 5})
    assert operator.doc_md == "Trains."


def test_it_works_with_and_without_parentheses():
    with DAG("d"):
        assert elastic_task(train)(epochs=1).operator.task_id == "train"
        assert elastic_task()(train)(epochs=1).operator.task_id == "train__1"


def test_an_annotation_as_a_dict_does_not_split_the_result():
    with DAG("d"):
        assert elastic_task(train)(epochs=1).operator.multiple_outputs is False
        mapped = elastic_task(train).expand(epochs=[1, 2]).operator
    assert mapped.multiple_outputs is False


def test_splitting_the_result_is_refused_when_it_is_asked_for():
    with pytest.raises(ConfigError, match="multiple_outputs is not supported"):
        elastic_task(multiple_outputs=True)
    with DAG("d"), pytest.raises(TypeError, match="multiple_outputs"):
        elastic_task(train).override(multiple_outputs=True)(epochs=1)


def test_parameters_can_be_overridden_for_one_call():
    decorated = elastic_task(nproc_per_node=2, env={"A": "1"})(train)
    with DAG("d"):
        operator = decorated.override(task_id="big", nproc_per_node=4, retries=2)(epochs=1).operator
        plain = decorated(epochs=1).operator
    assert (operator.task_id, operator.nproc_per_node, operator.retries) == ("big", 4, 2)
    assert (plain.nproc_per_node, plain.env) == (2, {"A": "1"})


def test_a_sweep_is_one_independent_job_for_each_value():
    with DAG("d") as dag:
        mapped = elastic_task(nproc_per_node=2, python="/p")(train).partial().expand(epochs=[1, 2])
    assert isinstance(mapped.operator, MappedOperator)
    one = mapped.operator.unmap({"op_kwargs": {"epochs": 1}})
    assert isinstance(one, ElasticLaunchOperator)
    assert (one.op_kwargs, one.nproc_per_node, one.python) == ({"epochs": 1}, 2, "/p")
    assert one.function is train
    DagSerialization.to_dict(dag)


def test_arguments_from_upstream_tasks_make_them_upstream():
    with DAG("d"):
        before = BaseOperator(task_id="before")
        operator = elastic_task(train)(epochs=before.output["n"]).operator
    assert operator.upstream_task_ids == {"before"}


def test_wrong_arguments_do_not_parse():
    with DAG("d"), pytest.raises(TypeError, match="epochs"):
        elastic_task(train)()


def test_wrong_parameters_do_not_parse():
    with DAG("d"), pytest.raises(ConfigError, match="nnodes is '4:2'"):
        elastic_task(nnodes="4:2")(train)(epochs=1)


def test_a_wrapped_function_keeps_its_wrapper():
    import functools

    @functools.wraps(train)
    def timed(*args, **kwargs):
        return train(*args, **kwargs)

    with DAG("d"):
        assert elastic_task(timed)(epochs=1).operator.function is timed
