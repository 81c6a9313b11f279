"""The operator in a DAG file: what is refused, when, and what it stores; nothing is launched
here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import tempfile
import traceback
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, XComArg
from airflow.sdk.bases.operator import BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider.decorators.elastic import elastic_task
from airflow_provider.execution.launch import Launch
from airflow_provider.gang.node import GangNode
from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.errors import ConfigError, StoppedError
from llutil.std import Std

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def train(epochs, rate=0.1): ...


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def context_for(folder):
    return {
        "dag": SimpleNamespace(fileloc=str(folder / "dag.py")),
        "ti": SimpleNamespace(
            dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, xcom_push=None
        ),
        "run_id": "r",
    }


def operator(**parameters):
    return ElasticLaunchOperator(task_id="t", **{"entrypoint": train, "op_args": [1]} | parameters)


def test_a_dag_file_with_mistakes_does_not_parse_and_all_of_them_are_named():
    with pytest.raises(ConfigError) as caught:
        operator(nnodes="4:2", nproc_per_node=0, entrypoint=3, multiple_outputs=True)
    assert len(caught.value.problems) == 4


def test_a_task_given_in_place_of_its_function_is_recognised():
    from airflow.sdk import task

    with pytest.raises(ConfigError, match="wanted the function itself"):
        operator(entrypoint=task(train))


def test_what_only_a_run_can_tell_is_left_to_it():
    operator(
        nnodes="{{ params.nodes }}",
        env={"A": "{{ ds }}"},
        entrypoint="{{ params.script }}",
        rdzv_backend="{{ params.backend }}",
    )


NATIVE = {
    "rdzv_id": "{{ 1 }}_000",
    "node_label": "{{ 7 }}",
    "env": {"T": "4", "V": "{{ '007' }}", "W": "1.10"},
    "nproc_per_node": "{{ 2 }}",
    "op_args": ["{{ [1, 2] }}"],
}
RENDERED = {
    "rdzv_id": "1_000",
    "node_label": "7",
    "env": {"T": "4", "V": "007", "W": "1.10"},
    "nproc_per_node": "2",
    "op_args": [[1, 2]],
}


@pytest.mark.parametrize("mapped", [False, True])
def test_where_templates_are_rendered_to_objects_only_arguments_are_no_text(mapped):
    with DAG("d", render_template_as_native_obj=True):
        if mapped:
            whole = ElasticLaunchOperator.partial(task_id="t", entrypoint=train).expand_kwargs(
                [NATIVE]
            )
            task = whole.unmap(NATIVE)
            fields, env = whole.template_fields, whole.get_template_env()
            task._do_render_template_fields(task, fields, {}, env, set())
        else:
            task = operator(**NATIVE)
            task.render_template_fields({})
    assert {name: getattr(task, name) for name in RENDERED} == RENDERED
    assert task.render_template_as_native_obj is None


class Options:
    """An argument with templates of its own."""

    template_fields = ("rate", "op_args")

    def __init__(self):
        self.rate, self.op_args = "{{ 0.1 }}", "{{ 2 }}"


def test_templates_of_objects_in_arguments_and_of_whole_dicts_become_objects_too():
    with DAG("d", render_template_as_native_obj=True):
        task = operator(
            op_kwargs={"options": Options()},
            env="{{ {'A': '1'} }}",
            rdzv_configs="{{ {'timeout': 7} }}",
        )
        task.render_template_fields({})
    options = task.op_kwargs["options"]
    assert (options.rate, options.op_args) == (0.1, 2)
    assert (task.env, task.rdzv_configs) == ({"A": "1"}, {"timeout": 7})


async def train_soon():
    pass


def batches():
    yield 1


@pytest.mark.parametrize(
    ("function", "kind"), [(train_soon, "an async function"), (batches, "a generator")]
)
def test_a_function_whose_call_runs_nothing_does_not_parse(function, kind):
    for make in (
        lambda: operator(entrypoint=function),
        lambda: ElasticLaunchOperator.gang(nodes=2, task_id="t", entrypoint=function),
        elastic_task(function),
        elastic_task(function, gang=2),
    ):
        with DAG("d"), pytest.raises(ConfigError, match=f"entrypoint is {kind}, of which a call"):
            make()


def test_an_upstream_tasks_output_makes_it_upstream():
    with DAG("d"):
        before = BaseOperator(task_id="before")
        after = operator(op_args=[before.output], nproc_per_node=before.output)
        script = ElasticLaunchOperator(task_id="script", entrypoint=before.output)
    assert after.upstream_task_ids == {"before"}
    assert script.upstream_task_ids == {"before"}


def test_the_deprecated_timeout_warns_where_the_dag_is_written():
    with pytest.warns(DeprecationWarning, match="rdzv_configs={'timeout': seconds}"):
        operator(rdzv_timeout=60)


def test_a_stored_dag_holds_no_function_and_the_same_text_every_time():
    def store():
        with DAG("d") as dag:
            operator(redirects={0: Std.ALL}, launch_retry=LaunchRetry(attempts=1))
            ElasticLaunchOperator.partial(
                task_id="mapped", entrypoint="a.py", launch_retry=LaunchRetry(), tee=Std.ERR
            ).expand(op_args=[["1"], ["2"]])
        return json.dumps(DagSerialization.to_dict(dag), sort_keys=True)

    stored = store()
    assert stored == store()
    assert "def train" not in stored
    assert "<function" not in stored
    assert '"op_args"' in stored


def test_defaults_of_the_dag_reach_the_operator():
    with DAG("d", default_args={"nproc_per_node": 3, "env": {"A": "1"}}):
        task = operator()
    assert (task.nproc_per_node, task.env) == (3, {"A": "1"})


def unmapped(**expanded):
    with DAG("d"):
        mapped = ElasticLaunchOperator.partial(task_id="t", entrypoint=train).expand(
            **{name: [value] for name, value in expanded.items()}
        )
    return mapped.unmap(expanded)


def test_a_mapped_value_that_is_wrong_fails_its_task_for_good_instead_of_being_retried(temporary):
    task = unmapped(nnodes="4:2", op_args=[1])
    with pytest.raises(ConfigError, match="nnodes is '4:2'"):
        task.execute(context_for(temporary))


@pytest.mark.parametrize(
    ("parameters", "texts"),
    [
        ({"entrypoint": "scripts/none.py"}, ["script '", "scripts/none.py' does not exist"]),
        ({"entrypoint": "no-such-command"}, ["command 'no-such-command' is neither"]),
        ({"entrypoint": "bin/none"}, ["bin/none' does not exist (looked for"]),
        ({"entrypoint": "-m ", "op_args": []}, ["'-m' without a module"]),
        ({"entrypoint": " "}, ["entrypoint is an empty string"]),
        ({"op_args": []}, ["train(epochs, rate=0.1) cannot be called", "'epochs'"]),
        ({"op_args": [1, 2, 3]}, ["too many positional arguments"]),
        ({"op_kwargs": {"speed": 1}}, ["unexpected keyword argument 'speed'"]),
        ({"op_args": "abc"}, ["op_args is a text; wanted a list"]),
        ({"op_args": {"token": "s3cr3t"}}, ["op_args is a value of type dict; wanted a list"]),
        ({"op_kwargs": [1]}, ["op_kwargs is a value of type list; wanted a dict"]),
        ({"op_kwargs": {1: "s3cr3t"}}, ["op_kwargs has the keys 1; wanted a dict"]),
        ({"env": "{'A': 'b'}", "nproc_per_node": 0}, ["env is a text", "nproc_per_node is 0"]),
        ({"cwd": 7, "nproc_per_node": 0}, ["cwd is 7; wanted a path", "nproc_per_node is 0"]),
        ({"cwd": ["x"]}, ["cwd is a value of type list; wanted a path"]),
        ({"links": "{'A': '/b'}"}, ["links is a text; wanted a dict of names and URLs"]),
        ({"rdzv_conn_id": [1]}, ["rdzv_conn_id is a value of type list; wanted the name of"]),
        ({"launch_retry": 3}, ["launch_retry is 3; wanted a LaunchRetry(...)"]),
        ({"entrypoint": lambda ti: ti, "op_args": []}, ["context value 'ti'"]),
        (
            {"entrypoint": "true", "op_args": [], "op_kwargs": {"a": 1}},
            ["op_kwargs has 'a', but 'true' is no function"],
        ),
        ({"python": "/no/such/python"}, ["python '/no/such/python' cannot be started"]),
        ({"cwd": "nowhere"}, ["nowhere' is not a folder on this worker"]),
        (
            {"entrypoint": "none.py", "op_kwargs": {"a": 1}, "nproc_per_node": 0},
            ["3 things are wrong", "nproc_per_node is 0", "none.py", "op_kwargs has 'a'"],
        ),
    ],
)
def test_what_a_retry_cannot_mend_fails_the_task_for_good_with_one_readable_error(
    temporary, parameters, texts
):
    task = operator()
    for name, value in parameters.items():  # as rendering sets them, after the DAG was parsed
        setattr(task, name, value)
    if "entrypoint" in parameters:
        text = parameters["entrypoint"]
        task.function, task.entrypoint = (text, None) if callable(text) else (None, text)
    with pytest.raises(ConfigError) as caught:
        task.execute(context_for(temporary))
    told = "".join(traceback.format_exception(caught.value))
    for text in texts:
        assert text in str(caught.value)
    assert told.count(str(caught.value)) == 1, "not again for a cause"


@pytest.mark.parametrize("name", ["entrypoint", "nnodes", "rdzv_endpoint", "cwd", "python", "role"])
def test_a_template_that_renders_to_nothing_is_never_taken_for_a_default(temporary, name):
    task = operator(**{name: "{{ '' }}"})
    setattr(task, name, "")
    with pytest.raises(ConfigError, match="which rendered to nothing") as caught:
        task.execute(context_for(temporary))
    assert str(caught.value).startswith(name)


UP = ("checkpoint_path", "rdzv_conn_id", "results_path", "cwd", "op_args", "entrypoint", "chaos")


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", UP)
def test_an_upstream_output_that_is_none_is_never_taken_for_a_default(temporary, name, mapped):
    with DAG("d"):
        given = {"op_args": [1], "entrypoint": train, name: BaseOperator(task_id="up").output}
        if mapped:
            whole = ElasticLaunchOperator.partial(task_id="t", **given).expand(role=["a"])
            task = whole.unmap({"role": "a"})
        else:
            task = ElasticLaunchOperator(task_id="t", **given)
    context = context_for(temporary)
    context["ti"].xcom_pull = lambda **_: None
    task._do_render_template_fields(task, [name], context, task.get_template_env(), set())
    assert getattr(task, name) is None
    with pytest.raises(ConfigError) as caught:
        task.execute(context)
    assert str(caught.value) == (
        f"{name} is the output of task 'up', which is None or empty; wanted a value, or no {name} "
        "at all"
    )


@pytest.mark.parametrize("retry", [0, 3, "often"])
def test_a_launch_retry_that_is_none_does_not_parse(retry):
    with pytest.raises(ConfigError, match=r"launch_retry is .*; wanted a LaunchRetry"):
        operator(launch_retry=retry)
    with DAG("d"), pytest.raises(ConfigError, match=r"launch_retry is .*; wanted a LaunchRetry"):
        ElasticLaunchOperator.gang(nodes=2, task_id="t", entrypoint=train, launch_retry=retry)


@pytest.mark.parametrize("gang", [False, True])
@pytest.mark.parametrize("name", sorted({*ElasticLaunchOperator.template_fields} - {"launch"}))
def test_whatever_a_parameter_has_come_to_is_taken_or_refused_as_configuration(
    temporary, monkeypatch, name, gang
):
    monkeypatch.setattr(Launch, "run", lambda *_: {})
    monkeypatch.setattr(GangNode, "states", lambda *_: {})
    ti = {"id": "7", "map_index": 0, "xcom_push": lambda **_: None}
    for value in (7, "{'a': 'b'}", [1], ["x", 2], {"a": [1]}, {3: 4}, b"x", object()):
        task = operator()
        if gang:
            task.gang_nodes = 1
        setattr(task, name, value)
        if name == "entrypoint":
            task.function = None
        context = context_for(temporary)
        context["dag_run"] = SimpleNamespace(clear_number=0, run_after=NOW, start_date=NOW)
        context["ti"] = SimpleNamespace(**vars(context["ti"]) | ti)
        with contextlib.suppress(ConfigError):
            task.execute(context)


def test_bad_input_leaves_nothing_on_disk_but_the_users_empty_folder(temporary):
    task = operator(python="/no/such/python")
    with pytest.raises(ConfigError):
        task.execute(context_for(temporary))
    (folder,) = temporary.iterdir()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("entrypoint", [train, "package.module:train", "true"])
def test_a_task_whose_working_directory_was_removed_needs_one_from_its_dag(
    temporary, monkeypatch, entrypoint
):
    folder = temporary / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    task = operator(entrypoint=entrypoint)
    task.nproc_per_node = 0
    with pytest.raises(ConfigError, match="working directory of this task was removed") as caught:
        task.execute(context_for(temporary))
    assert len(caught.value.problems) == 2
    task = operator(entrypoint=entrypoint, cwd=str(temporary), python="/no/such/python")
    with pytest.raises(ConfigError, match="python '/no/such/python' cannot be started"):
        task.execute(context_for(temporary))


def test_a_task_that_was_killed_before_it_began_starts_no_agent(temporary):
    task = operator(python="/no/such/python")
    task.on_kill()
    task.on_kill()
    with pytest.raises(StoppedError, match="not started: Airflow asked the task to end"):
        task.execute(context_for(temporary))


def test_its_output_can_be_mapped_over():
    with DAG("d"):
        task = operator()
        downstream = BaseOperator.partial(task_id="each").expand_kwargs(
            task.output.map(lambda rank: {"doc": rank})
        )
    assert isinstance(task.output, XComArg)
    assert downstream.upstream_task_ids == {"t"}
