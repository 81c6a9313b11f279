"""What a task instance launches, by what its operator says."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider.execution import worker_files
from airflow_provider.execution.launch import Launch
from airflow_provider.execution.task_run import TaskRun
from airflow_provider.operators.elastic import ElasticLaunchOperator
from llutil.errors import ConfigError, ResultError


@pytest.fixture
def run_of(tmp_path):
    """Makes the run of a task with these parameters."""
    ti = SimpleNamespace(id="7", dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=2)
    context = {"dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py")), "ti": ti, "run_id": "r"}

    def make(**parameters):
        with DAG("d"):
            task = ElasticLaunchOperator(task_id="t", entrypoint="true", **parameters)
        return TaskRun(task, context, on_running=lambda _: None)

    return make


@pytest.fixture
def launched(run_of):
    """Makes the launch of a task with these parameters."""
    return lambda **parameters: run_of(**parameters).launch()


def test_more_may_be_returned_where_it_is_stored(launched, tmp_path):
    store = {"results_path": f"file://{tmp_path}"}
    assert [launched(**one).result_limit for one in ({}, store)] == [2**20, 2**30]
    assert [launched(result_limit=5, **one).result_limit for one in ({}, store)] == [5, 5]


@pytest.mark.parametrize(
    ("parameters", "run_id", "by_attempt"),
    [
        ({}, "d.t.r.t2.a1-", True),
        ({"nnodes": "1:2", "rdzv_endpoint": "e:1"}, "d.t.r.t2.a1-", False),
        ({"rdzv_id": "mine"}, "mine", False),
    ],
)
def test_a_run_has_its_id_before_it_is_checked(launched, parameters, run_id, by_attempt):
    launch = launched(**parameters)
    assert launch.config.run_id.startswith(run_id)
    assert launch.id_by_attempt == by_attempt


@pytest.mark.parametrize(
    ("parameters", "job"),
    [
        pytest.param({}, "d.t.r-", id="one node"),
        pytest.param({"rdzv_id": "mine"}, "d.t.r-", id="one node with a name"),
        pytest.param({"nnodes": "1:2", "rdzv_endpoint": "e:1"}, "d.t.r-", id="no name to share"),
        pytest.param({"nnodes": "1:2", "rdzv_endpoint": "e:1", "rdzv_id": "mine"}, "", id="shared"),
        pytest.param({"checkpoint_job": "own"}, "own", id="named by its author"),
    ],
)
def test_a_job_has_one_folder_whichever_try_it_is(run_of, parameters, job):
    jobs = []
    for number in (2, 3):
        run = run_of(checkpoint_path="/c", **parameters)
        run._try_number = number
        jobs.append(run.launch().config.checkpoint_job)
    assert jobs[0] == jobs[1]
    assert jobs[0].startswith(job)
    assert bool(jobs[0]) == bool(job)


def test_what_has_struck_a_job_is_known_by_its_name_in_all_of_its_tries(run_of):
    run = run_of(chaos="kill(rank=0, step=5)")
    assert run.launch().config.checkpoint_job.startswith("d.t.r-")
    assert run.launch().config.chaos == ("kill(rank=0, step=5)",)


def test_without_checkpoints_airflow_is_not_asked_for_a_folder(launched):
    assert launched().config.checkpoint_job == ""


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("nproc_per_node", 0, "nproc_per_node is 0"),
        ("env", "{'A': 'b'}", "env is a text"),
        ("cwd", 7, "cwd is 7"),
        ("launch_retry", 3, "launch_retry is 3"),
    ],
)
def test_a_configuration_that_is_refused_is_in_the_state_of_the_task(run_of, name, value, text):
    kept = {}
    run = run_of()
    run.context["task_state_store"] = SimpleNamespace(
        get=kept.get, set=kept.__setitem__, delete=kept.pop
    )
    setattr(run._operator, name, value)
    with pytest.raises(ConfigError):
        run.run(logging.getLogger(__name__))
    assert text in kept["elastic"]["failure"]["why"]


@pytest.fixture
def worker_folder(tmp_path, monkeypatch):
    """The worker's folder for temporary files."""
    folder = tmp_path / "worker"
    folder.mkdir()
    monkeypatch.setattr(worker_files.tempfile, "gettempdir", lambda: str(folder))
    return folder


@pytest.mark.parametrize("returned", [{0: [1]}, None], ids=["has succeeded", "runs"])
def test_a_timeout_repeats_no_job_that_has_succeeded_and_loses_none_of_its_values(
    run_of, worker_folder, monkeypatch, returned
):
    def interrupted(launch, *_):
        if returned is not None:
            launch.succeeded(returned)
        raise AirflowTaskTimeout("Timeout")

    monkeypatch.setattr(Launch, "run", interrupted)
    run = run_of()
    with pytest.raises(AirflowTaskTimeout) as caught:
        run.run(logging.getLogger(__name__))
    run.context["ti"].task = task = run._operator
    decision = task.retry_policy.evaluate(caught.value, 2, 3, run.context)
    kept = [path.read_text() for path in worker_folder.rglob("rank_0.json")]
    succeeded = returned is not None
    assert decision.action is (RetryAction.FAIL if succeeded else RetryAction.DEFAULT)
    assert kept == (["[1]"] if succeeded else [])


def test_values_that_nobody_wants_are_not_kept(run_of, worker_folder, monkeypatch):
    def interrupted(launch, *_):
        launch.succeeded({0: [1]})
        raise AirflowTaskTimeout("Timeout")

    monkeypatch.setattr(Launch, "run", interrupted)
    run = run_of(do_xcom_push=False)
    with pytest.raises(AirflowTaskTimeout):
        run.run(logging.getLogger(__name__))
    assert run._operator.job_succeeded
    assert not [*worker_folder.rglob("rank_*")]


def test_what_airflow_does_not_take_is_copied_to_the_store(
    run_of, worker_folder, tmp_path, monkeypatch
):
    def refuse(**_):
        raise OSError("no room")

    run = run_of(results_path=f"file://{tmp_path}/store")
    run.context["ti"].xcom_push = refuse
    monkeypatch.setattr(Launch, "run", lambda *_: {0: [1]})
    with pytest.raises(ResultError) as caught:
        run.run(logging.getLogger(__name__))
    (copy,) = (tmp_path / "store").rglob("rank_0.json")
    assert copy.read_text() == "[1]"
    assert f" is at file://{copy}" in str(caught.value)


@pytest.mark.parametrize("taken", [True, False])
def test_the_state_says_how_the_task_ended_once_airflow_has_the_values_or_not(
    run_of, worker_folder, monkeypatch, taken
):
    kept = {}

    def push(key, **_):
        assert "elastic" not in kept
        if not taken:
            raise OSError(f"no room for {key}")

    run = run_of()
    run.context["ti"].xcom_push = push
    run.context["task_state_store"] = SimpleNamespace(
        get=kept.get, set=kept.__setitem__, delete=kept.pop
    )
    monkeypatch.setattr(Launch, "run", lambda *_: {0: [1]})
    if taken:
        assert run.run(logging.getLogger(__name__)) == {"0": [1]}
    else:
        with pytest.raises(ResultError, match="no room for rank_0"):
            run.run(logging.getLogger(__name__))
    assert kept["elastic"]["succeeded"] is taken
    failure = kept["elastic"]["failure"]
    assert failure is None if taken else failure["class"] == "result"
