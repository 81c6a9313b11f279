"""An operator's parameters: each mistake is named, all of them at once, and as early as it can be
known.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider.parameters import operator_parameters
from llutil.std import Std


def problems(**values):
    return operator_parameters.problems_so_far(values)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"nnodes": "4:2"}, "nnodes is '4:2': max_nodes is 2, below min_nodes, which is 4"),
        ({"nnodes": 0}, "nnodes is 0; wanted at least 1"),
        ({"nnodes": ""}, "nnodes is ''; wanted a number, or 'min:max'"),
        ({"nnodes": "a:b"}, "nnodes is 'a:b'"),
        ({"nnodes": "1:2:3"}, "nnodes is '1:2:3'"),
        ({"nnodes": True}, "nnodes is True"),
        ({"nnodes": 1.5}, "nnodes is 1.5"),
        ({"nnodes": None}, "nnodes is None"),
        (
            {"nnodes": "2", "rdzv_endpoint": "a:1"},
            "nnodes is '2', but this task is one node, and without an rdzv_id",
        ),
        ({"nnodes": "1:2"}, "rdzv_endpoint is empty, but up to 2 nodes must find each other"),
        ({"nproc_per_node": 0}, "nproc_per_node is 0; wanted 1 to 256"),
        ({"nproc_per_node": "2 GPUs"}, "nproc_per_node is '2 GPUs'"),
        ({"rdzv_backend": "gossip"}, "rdzv_backend is 'gossip'; wanted one of"),
        ({"rdzv_configs": {"lease": 3}}, "rdzv_configs has 'lease', which backend 'etcd'"),
        ({"rdzv_configs": {"timeout": "soon"}}, "rdzv_configs has 'timeout': 'soon'"),
        ({"rdzv_configs": "x", "rdzv_timeout": 5}, "rdzv_configs is a str; wanted a dict"),
        ({"rdzv_timeout": -5}, "rdzv_configs has 'timeout': -5"),
        ({"rdzv_endpoint": "nowhere"}, "rdzv_endpoint 'nowhere' has no port; wanted host:port"),
        ({"rdzv_endpoint": 2379}, "rdzv_endpoint '2379' has no port; wanted host:port"),
        ({"node_index": -1}, "node_index is -1"),
        ({"rerun_token": True}, "rerun_token is True; wanted text"),
        ({"rdzv_id": "a/b"}, "rdzv_id is 'a/b'"),
        ({"start_method": "thread"}, "start_method is 'thread'"),
        ({"max_restarts": -1}, "max_restarts is -1"),
        ({"max_restarts": "some"}, "max_restarts is 'some'; wanted a number"),
        ({"monitor_interval": 0}, "monitor_interval is 0"),
        ({"grace_period": -1}, "grace_period is -1"),
        ({"redirects": "all"}, "redirects has 'all'"),
        ({"metrics_cfg": "x"}, "metrics_cfg is 'x'"),
        ({"metrics_cfg": {"g": "file"}}, "metrics_cfg has 'g': 'file'; wanted 'null', 'console'"),
        ({"local_ranks_filter": "0"}, "local_ranks_filter is '0'; wanted a set of local ranks"),
        (
            {"checkpoint_path": "checkpoints"},
            "checkpoint_path is 'checkpoints', which is another folder on each worker",
        ),
        ({"checkpoint_path": Path("a/b")}, "checkpoint_path is 'a/b', which is another folder on"),
        ({"checkpoint_path": "s3:/bucket"}, "checkpoint_path is 's3:/bucket'; wanted '//' after"),
        ({"checkpoint_path": 7}, "checkpoint_path is '7', which is another folder"),
        ({"checkpoint_every": 5}, "checkpoint_every is 5, but there is no checkpoint_path"),
        ({"checkpoint_every": "often", "checkpoint_path": "/c"}, "checkpoint_every is 'often'"),
        ({"checkpoint_keep": "0"}, "checkpoint_keep is 0; wanted how many"),
        ({"checkpoint_keep": "few"}, "checkpoint_keep is 'few'; wanted a number"),
        ({"resume": "maybe"}, "resume is 'maybe'; wanted one of 'auto', 'always', 'never'"),
        ({"chaos": "kil(rank=1)"}, "chaos has 'kil(rank=1)': there is no fault 'kil'"),
        ({"chaos": ["kill(rank=1, step=1)"]}, "chaos has kill(rank=1, step=1); wanted rank 0 to 0"),
        ({"env": {"THREADS": [4]}}, "env has a value of type list for 'THREADS'; wanted a dict of"),
        ({"env": {4: "a"}}, "env has the name 4; wanted a dict of texts or numbers"),
        ({"env": {"DEBUG": True}}, "env has a value of type bool for 'DEBUG'; wanted a dict of"),
        ({"env": {"A": "1\0", "B": "1"}}, "env has a NUL character in 'A'; wanted a dict of"),
        ({"env": "A=1"}, "env is a text; wanted a dict of texts or numbers by name"),
        ({"env": {"A=1": "", "B": "1"}}, "'A='; no name may be empty or hold '='"),
        ({"env": {"": "1"}}, "''; no name may be empty or hold '='"),
        ({"cwd": 3}, "cwd is 3; wanted a path"),
        ({"cwd": "/a\0"}, "wanted a path"),
        ({"launch_retry": 3}, "launch_retry is 3; wanted a LaunchRetry(...), or None"),
        ({"launch_retry": 0}, "launch_retry is 0; wanted a LaunchRetry(...), or None"),
        ({"retry_policy": "x"}, "retry_policy is 'x'; wanted an ElasticRetryPolicy(...), or None"),
        ({"rdzv_conn_id": ["x"]}, "rdzv_conn_id is a value of type list; wanted the name of"),
        ({"results_format": ["npz"]}, "results_format is a value of type list; wanted 'json'"),
        ({"python": 3.12}, "python is 3.12; wanted a path"),
        ({"result_limit": 0}, "result_limit is 0; wanted a number of bytes"),
        ({"results_threshold": -1}, "results_threshold is -1; wanted 0 or more bytes"),
        ({"results_format": "pickle"}, "results_format is 'pickle'; wanted 'json' or 'npz'"),
        ({"multiple_outputs": True}, "multiple_outputs is not supported"),
    ],
)
def test_a_mistake_is_named_with_the_parameter_that_the_user_wrote(values, text):
    found = problems(**values)
    assert len(found) == 1
    assert text in str(found[0])
    assert found[0].field in str(found[0])


def test_all_mistakes_are_named_at_once():
    found = problems(nnodes="4:2", nproc_per_node=0, rdzv_backend="gossip", env={"A": []})
    assert len(found) == 4


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"nnodes": "1", "nproc_per_node": "auto"},
        {"nnodes": "2:4", "rdzv_id": "x", "rdzv_endpoint": "a:1,b:2"},
        {"nnodes": 2, "rdzv_id": "x", "rdzv_backend": "c10d", "rdzv_endpoint": "host:29400"},
        {"nnodes": "1:2", "rdzv_endpoint": "a:1"},
        {"nnodes": "2:2", "gang_nodes": 2, "rdzv_endpoint": "a:1"},
        {"redirects": {0: Std.ALL}, "tee": Std.OUT, "log_dir": Path("/logs")},
        {"rdzv_id": 2, "rerun_token": 1.5, "node_label": 3, "env": {"T": 4, "RATE": 0.5}},
        {"rdzv_configs": None, "env": None, "cwd": None, "python": None, "rdzv_id": None},
    ],
)
def test_what_is_right_is_left_alone(values):
    assert problems(**values) == []


@pytest.mark.parametrize(
    "values",
    [
        {"nnodes": "{{ params.nodes }}"},
        {"nnodes": "2", "rdzv_id": "{{ run_id }}", "rdzv_endpoint": "a:1"},
        {"nnodes": "2", "rdzv_id": "x", "rdzv_endpoint": "{{ var.value.etcd }}"},
        {"rdzv_backend": "{{ params.backend }}", "rdzv_configs": {"rank": 1}},
        {"rdzv_backend": "static", "rdzv_endpoint": "h:1", "rdzv_configs": {"rank": "{{ 1 }}"}},
        {
            "nnodes": "{{ params.nodes }}",
            "rdzv_backend": "static",
            "rdzv_endpoint": "h:1",
            "rdzv_configs": {"rank": 1},
        },
        {"rdzv_backend": "{{ params.backend }}", "rdzv_endpoint": "h:1/chroot"},
        {"nproc_per_node": "{% if 1 %}2{% endif %}"},
        {"env": {"A": "{{ ds }}"}},
        {"max_restarts": "{{ params.restarts }}"},
    ],
)
def test_what_is_not_known_yet_gets_the_benefit_of_the_doubt(values):
    assert problems(**values) == []


def test_a_doubt_about_one_parameter_hides_no_mistake_in_another():
    found = problems(nnodes="{{ params.nodes }}", nproc_per_node=0)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("plain", False),
        ("{{ x }}", True),
        ("{# x #}", True),
        ({"a": ["{% x %}"]}, True),
        ((1, {"b": 2}), False),
        (3, False),
        (None, False),
    ],
)
def test_a_template_is_recognised_however_deep(value, answer):
    assert operator_parameters.is_unresolved(value) is answer


def test_an_upstream_tasks_output_is_not_known_yet_and_a_path_is():
    from airflow.sdk import DAG
    from airflow.sdk.bases.operator import BaseOperator

    with DAG("d"):
        output = BaseOperator(task_id="t").output
    assert operator_parameters.is_unresolved(output)
    assert operator_parameters.is_unresolved([{"x": output}])
    assert not operator_parameters.is_unresolved(Path("/x"))


def test_a_template_that_renders_to_nothing_is_named_with_its_template():
    given = {"nnodes": "{{ params.nodes }}", "role": "{{ x }}", "cwd": "{{ y }}", "python": None}
    rendered = {"nnodes": " ", "role": "None", "cwd": "/x", "python": None}
    unresolved = operator_parameters.unresolved_texts(given)
    found = operator_parameters.blank_templates(unresolved, rendered)
    assert [problem.field for problem in found] == ["nnodes", "role"]
    assert "nnodes is '{{ params.nodes }}', which rendered to nothing" in str(found[0])


def test_an_upstream_tasks_output_that_is_nothing_is_named_with_its_task():
    from airflow.sdk import DAG, ObjectStoragePath
    from airflow.sdk.bases.operator import BaseOperator

    with DAG("d") as dag:
        up, other = BaseOperator(task_id="up").output, BaseOperator(task_id="other").output
    given = {
        "cwd": up,
        "role": up.zip(other),
        "python": dag.param("python", None),
        "rdzv_id": up,
        "env": {"A": up},
        "results_path": ObjectStoragePath("file:///{{ x }}"),
    }
    rendered = dict.fromkeys(given) | {"rdzv_id": "x"}
    unresolved = operator_parameters.unresolved_texts(given)
    assert [*map(str, operator_parameters.blank_templates(unresolved, rendered))] == [
        "cwd is the output of task 'up', which is None or empty; wanted a value, or no cwd at all",
        "role is the output of tasks 'up', 'other', which is None or empty; wanted a value, or no "
        "role at all",
        "python is a value of type DagParam, which is None or empty; wanted a value, or no python "
        "at all",
    ]


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "values",
    [
        {"env": {"KEY": SECRET, "DEBUG": True}},
        {"env": {"KEY": [SECRET]}},
        {"env": {f"KEY={SECRET}": "x"}},
        {"env": f"KEY={SECRET}"},
        {"env": [f"KEY={SECRET}"]},
        {"links": {"Tracker": f"ftp://u:{SECRET}@h"}},
        {"links": f"{{'Tracker': '{SECRET}'}}"},
        {"results_path": f"bucket:{SECRET}@h/folder"},
        {"results_path": {"key": SECRET}},
        {"rdzv_conn_id": {"password": SECRET}},
        {"rdzv_endpoint": [f"root:{SECRET}@h:1"]},
        {"rdzv_configs": f"password={SECRET}"},
        {"rdzv_configs": {"password": [SECRET]}},
        {"launch_retry": {"x": SECRET}},
        {"role": {"x": SECRET}},
    ],
)
def test_a_value_that_may_be_secret_is_in_no_text(values):
    found = problems(**values)
    assert found
    assert SECRET not in str(found)


def test_an_entrypoint_that_is_no_text_is_not_shown():
    (problem,) = operator_parameters.entrypoint_problems(["train.py", "--token", SECRET])
    assert "entrypoint is a value of type list; wanted a function" in str(problem)
