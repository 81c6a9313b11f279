"""Gangs in a DAG file: what is made, what is refused, and that a sweep is something else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, task, task_group
from airflow.sdk.bases.operator import BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider.decorators.elastic import elastic_task
from airflow_provider.execution.task_run import TaskRun
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.served_ledger import is_served
from airflow_provider.operators.elastic import ElasticLaunchOperator
from llutil.errors import ConfigError

PASSED_ON = {
    "pool": "gpu",
    "pool_slots": 2,
    "queue": "big",
    "executor": "LocalExecutor",
    "executor_config": {"memory": 1},
    "retries": 5,
}


def train(epochs: int, rate: float = 0.1) -> None:
    """Trains."""


def classic(**parameters):
    given = {"task_id": "train", "nodes": 4, "min_nodes": 2, "entrypoint": train}
    return ElasticLaunchOperator.gang(**given | {"op_args": [5]} | parameters)


def decorated(**parameters):
    return elastic_task(**{"gang": 4, "min_nodes": 2} | parameters)(train)(5).operator


BOTH = pytest.mark.parametrize("make", [classic, decorated])


def context_of(mapped, index, count=None, **run):
    now = datetime(2026, 11, 22, tzinfo=UTC)
    fields = {"clear_number": 0, "start_date": now, "run_after": now} | run
    ti = SimpleNamespace(
        dag_id="d", task_id=mapped.task_id, run_id="r", map_index=index, try_number=1
    )
    return {
        "dag": SimpleNamespace(fileloc="/dags/d.py"),
        "dag_run": SimpleNamespace(**fields),
        "ti": ti,
        "run_id": "r",
        "expanded_ti_count": count,
    }


def node(mapped, index, **run):
    """The mapped instance, as a task process makes it, and its context."""
    context = context_of(mapped, index, 4, **run)
    kwargs, _ = mapped._expand_mapped_kwargs(context)
    return mapped.unmap(kwargs), context


def config(mapped, index, **run):
    task_instance, context = node(mapped, index, **run)
    return TaskRun(task_instance, context, on_running=lambda _: None).launch().config


@BOTH
def test_a_gang_is_one_mapped_task_with_an_instance_for_each_node(make):
    with DAG("d") as dag:
        make(rdzv_endpoint="e:1")
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert [one.task_id for one in stored.tasks] == ["train"]
    assert stored.get_task("train").get_parse_time_mapped_ti_count() == 4


@BOTH
def test_parameters_of_airflow_reach_every_node(make):
    with DAG("d") as dag:
        mapped = make(rdzv_endpoint="e:1", **PASSED_ON)
    instance, _ = node(mapped, 3)
    for name, value in PASSED_ON.items():
        assert getattr(mapped, name) == value
        assert getattr(instance, name) == value
    assert mapped.map_index_template == "node {{ ti.map_index }}"
    DagSerialization.to_dict(dag)


def test_parameters_can_be_overridden_for_one_gang():
    gang = elastic_task(gang=4, rdzv_endpoint="e:1")(train)
    with DAG("d"):
        small = gang.override(task_id="small", gang=2, pool="other", retries=1)(5).operator
        single = gang.override(task_id="single", gang=None)(5).operator
        plain = gang(5).operator
    assert (small.pool, small.retries, small.task_id) == ("other", 1, "small")
    assert len(small.op_kwargs_expand_input.value) == 2
    assert isinstance(single, ElasticLaunchOperator)
    assert single.gang_nodes is None
    assert len(plain.op_kwargs_expand_input.value) == 4


@BOTH
def test_nodes_have_one_rendezvous_id_and_their_own_index_name_and_results(make):
    with DAG("d"):
        mapped = (
            make(rdzv_endpoint="e:1", op_kwargs={"rate": 1})
            if make is classic
            else make(rdzv_endpoint="e:1")
        )
    configs = [config(mapped, index) for index in range(4)]
    assert len({one.run_id for one in configs}) == 1
    assert {one.rerun_token for one in configs} == {"0@2026-11-22T00:00:00+00:00"}
    assert [one.node_index for one in configs] == [0, 1, 2, 3]
    assert [one.node_label for one in configs] == ["node 0", "node 1", "node 2", "node 3"]
    assert {(one.min_nodes, one.max_nodes) for one in configs} == {(2, 4)}


@BOTH
def test_function_and_arguments_are_the_same_on_every_node(make):
    with DAG("d"):
        mapped = make(rdzv_endpoint="e:1")
    instances = [node(mapped, index)[0] for index in range(4)]
    assert {instance.function for instance in instances} == {train}
    assert [list(instance.op_args) for instance in instances] == [[5]] * 4


def test_the_run_id_stays_through_tries_and_the_token_changes_with_every_clearing_and_new_run():
    with DAG("d"):
        mapped = classic(rdzv_endpoint="e:1")
    first = config(mapped, 0)
    cleared = config(mapped, 1, clear_number=1)
    again = config(mapped, 1, start_date=datetime(2026, 11, 23, tzinfo=UTC))
    assert first.run_id == cleared.run_id == again.run_id
    assert len({one.rerun_token for one in (first, cleared, again)}) == 3


def test_what_a_user_says_counts():
    with DAG("d"):
        mapped = classic(rdzv_endpoint="e:1", rdzv_id="mine", rerun_token="t", node_label="big")
    found = config(mapped, 2)
    assert (found.run_id, found.rerun_token, found.node_label) == ("mine", "t", "big")


def test_without_min_nodes_all_are_needed():
    with DAG("d"):
        mapped = ElasticLaunchOperator.gang(
            task_id="t", nodes=4, entrypoint="true", rdzv_endpoint="e:1"
        )
    found = config(mapped, 0)
    assert (found.min_nodes, found.max_nodes) == (4, 4)


@BOTH
def test_a_gang_that_says_nowhere_where_it_meets_does_so_at_its_own_first_node(make):
    with DAG("d"):
        mapped = make(rdzv_configs={"last_call_timeout": 2})
    for index in range(4):
        found = config(mapped, index)
        assert is_served(found)
        assert found.rdzv_configs == {
            "timeout": 900.0,
            "last_call_timeout": 2,
            "lease_ttl": 10.0,
            "growth_timeout": 60.0,
        }
        assert (found.min_nodes, found.max_nodes, found.node_index) == (2, 4, index)


@BOTH
@pytest.mark.parametrize("backend", ["c10d", "static"])
def test_a_gang_at_torchs_own_backends_needs_an_endpoint(make, backend):
    with DAG("d"):
        make(rdzv_backend=backend, rdzv_endpoint="{{ params.endpoint }}")
        with pytest.raises(
            ConfigError, match=rf"'{backend}', which needs .* leave rdzv_backend out"
        ):
            make(rdzv_backend=backend)


def test_one_task_that_says_nowhere_where_it_meets_is_refused():
    with pytest.raises(ConfigError, match="rdzv_endpoint is empty"):
        ElasticLaunchOperator(task_id="t", entrypoint="true", nnodes=2, rdzv_id="x")


def test_a_sweep_is_independent_jobs_and_a_gang_is_one():
    with DAG("d"):
        gang = classic(rdzv_endpoint="e:1")
        sweep = ElasticLaunchOperator.partial(task_id="sweep", entrypoint=train).expand(
            op_args=[[1], [2], [3], [4]]
        )
        trials = elastic_task()(train).override(task_id="trials").expand(epochs=[1, 2, 3, 4])
    jobs = {}
    for name, mapped in (("gang", gang), ("sweep", sweep), ("trials", trials.operator)):
        launches = []
        for index in range(4):
            instance, context = node(mapped, index)
            launches.append(TaskRun(instance, context, on_running=lambda _: None).launch())
        jobs[name] = {one.config.run_id for one in launches}
        assert {one.id_by_attempt for one in launches} == {name != "gang"}
        assert {one.config.max_nodes for one in launches} == {4 if name == "gang" else 1}
    assert {name: len(ids) for name, ids in jobs.items()} == {"gang": 1, "sweep": 4, "trials": 4}
    assert len(set.union(*jobs.values())) == 9


def test_a_gang_cannot_be_expanded_a_second_time():
    gang = elastic_task(gang=2, rdzv_endpoint="e:1")(train)
    with DAG("d"):
        with pytest.raises(ConfigError, match=r"leave gang out if expand\(\) is to make"):
            gang.expand(epochs=[1, 2])
        with pytest.raises(ConfigError, match="leave gang out"):
            gang.expand_kwargs([{"epochs": 1}])


def test_a_sweep_that_calls_itself_a_gang_fails_for_good():
    with DAG("d"):
        mapped = ElasticLaunchOperator.partial(
            task_id="t", entrypoint="true", gang_nodes=4, rdzv_endpoint="e:1"
        ).expand(op_args=[[1], [2]])
    context = context_of(mapped, 1, 2)
    instance = mapped.unmap({"op_args": [1]})
    with pytest.raises(ConfigError, match=r"instance 1 of 2 mapped instances.*is not a gang"):
        TaskRun(instance, context, on_running=lambda _: None)


@pytest.mark.parametrize("parameter", ["gang_nodes", "min_nodes"])
def test_a_single_task_is_no_gang(parameter):
    with pytest.raises(ConfigError, match="cannot be given to a single task"):
        ElasticLaunchOperator(task_id="t", entrypoint="true", **{parameter: 2})


@BOTH
@pytest.mark.parametrize(
    ("parameters", "texts"),
    [
        ({"min_nodes": 5}, ["min_nodes is 5; wanted 1 to 4"]),
        ({"min_nodes": 0}, ["min_nodes is 0"]),
        ({"min_nodes": "{{ 2 }}"}, ["min_nodes is '{{ 2 }}'"]),
        ({"nnodes": 3}, ["nnodes is 3, but a gang sets it"]),
        ({"node_index": 1, "nnodes": 2}, ["2 things", "node_index is 1"]),
        ({"nproc_per_node": 0, "max_restarts": -1}, ["2 things", "nproc_per_node is 0"]),
        ({"rdzv_endpoint": "nowhere"}, ["rdzv_endpoint 'nowhere' has no port"]),
        ({"rdzv_endpoint": "e:1", "rdzv_conn_id": "c"}, ["give one of them"]),
    ],
)
def test_a_gang_that_cannot_be_does_not_parse(make, parameters, texts):
    with DAG("d"), pytest.raises(ConfigError) as caught:
        make(**parameters)
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize("nodes", [0, -1, True, 2.0, "4", "{{ params.nodes }}", 5000])
def test_the_number_of_nodes_is_a_number_when_the_dag_is_parsed(nodes):
    with DAG("d"):
        with pytest.raises(ConfigError, match="known when the DAG is parsed"):
            classic(nodes=nodes, min_nodes=None)
        with pytest.raises(ConfigError, match="known when the DAG is parsed"):
            decorated(gang=nodes, min_nodes=None)


def test_an_upstream_tasks_output_is_no_number_of_nodes():
    with DAG("d"):
        before = BaseOperator(task_id="before")
        with pytest.raises(ConfigError, match="known when the DAG is parsed"):
            classic(nodes=before.output)


@BOTH
def test_a_gang_in_a_mapped_task_group_is_refused_with_the_reason(make):
    @task_group
    def each(number):
        make(rdzv_endpoint="e:1")

    with DAG("d"), pytest.raises(ConfigError, match=r"mapped task group 'each'.*maps only once"):
        each.expand(number=[1, 2])


@BOTH
def test_a_gang_in_an_ordinary_task_group_is_fine(make):
    @task_group
    def one():
        make(rdzv_endpoint="e:1")

    with DAG("d") as dag:
        one()
    assert dag.has_task("one.train")


def test_wrong_arguments_do_not_parse():
    gang = task.elastic(gang=2, rdzv_endpoint="e:1")(train)
    with DAG("d"):
        for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"speed": 1})):
            with pytest.raises(TypeError, match="argument"):
                gang(*args, **kwargs)


def test_arguments_from_upstream_tasks_make_them_upstream():
    with DAG("d"):
        before = BaseOperator(task_id="before")
        gang = task.elastic(gang=2, rdzv_endpoint="e:1")(train)(before.output).operator
    assert gang.upstream_task_ids == {"before"}


def test_a_stored_gang_holds_no_function_and_the_same_text_every_time():
    def store():
        with DAG("d") as dag:
            classic(rdzv_endpoint="e:1", entrypoint="a.py")
            decorated(rdzv_endpoint="e:1", task_id="other")
        return json.dumps(DagSerialization.to_dict(dag), sort_keys=True)

    stored = store()
    assert stored == store()
    assert "def train" not in stored
    assert "<function" not in stored


def test_a_node_is_named_by_its_number():
    with DAG("d"):
        mapped = classic(rdzv_endpoint="e:1")
    one = GangNode.of(context_of(mapped, 3, 4), 4, 2)
    assert (one.number, one.name) == (3, "node 3")


@BOTH
@pytest.mark.parametrize(
    ("limits", "task_limits", "text"),
    [
        ({"max_active_tasks": 1}, {}, "max_active_tasks of DAG 'd' lets 1 run"),
        ({}, {"max_active_tis_per_dag": 1}, "max_active_tis_per_dag lets 1 run"),
        ({}, {"max_active_tis_per_dagrun": 1}, "max_active_tis_per_dagrun lets 1 run"),
        ({"default_args": {"max_active_tis_per_dag": 1}}, {}, "max_active_tis_per_dag lets 1 run"),
    ],
)
def test_a_gang_that_airflow_would_never_run_at_once_does_not_parse(
    make, limits, task_limits, text
):
    with DAG("d", **limits), pytest.raises(ConfigError) as caught:
        make(rdzv_endpoint="e:1", **task_limits)
    assert f"the gang needs 2 nodes at once, and {text}: it could never form" in str(caught.value)


@BOTH
def test_a_gang_that_can_form_but_not_at_full_size_is_warned_of(make):
    with (
        DAG("d", max_active_tasks=3),
        pytest.warns(UserWarning, match="never have more than 3") as warned,
    ):
        make(rdzv_endpoint="e:1")
    (warning,) = warned
    assert str(warning.message) == (
        "the gang of 4 nodes will never have more than 3 at once: max_active_tasks of DAG 'd' "
        "lets no more run"
    )
    assert warning.filename == __file__


@BOTH
def test_a_gang_as_large_as_its_limits_is_fine(make):
    with DAG("d", max_active_tasks=4):
        make(rdzv_endpoint="e:1", max_active_tis_per_dag=4, max_active_tis_per_dagrun=4)
