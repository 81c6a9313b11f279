"""The operator in Airflow's task runner, with real agents and real workers."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from airflow.sdk import DAG
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider.agent_client import process
from airflow_provider.decorators.elastic import elastic_task
from airflow_provider.execution.worker_files import user_folder
from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.parameters.task_key import deployment
from airflow_provider.retries.policy import KEY, NoMoreTriesError
from airflow_provider.retries.rules import TriesRecord
from llutil.errors import LaunchError, StoppedError, WorkersFailedError
from llutil.failure import FailureClass, JobFailure
from llutil.launcher.run_id import TaskKey
from llutil.task_link.agent_record import AgentRecord
from llutil.task_link.messages import JobFailed
from tests.support.airflow_task import run_task
from tests.support.forks import fork
from tests.support.rendezvous_values import failure
from tests.support.standard_input import standard_input

pytestmark = pytest.mark.launch

warm = pytest.mark.usefixtures("warm_agents")  # for what is not about an agent's start


@pytest.fixture
def dag(tmp_path):
    """A DAG whose file lies in a folder of the test's own."""
    with DAG("job") as dag:
        yield dag
    dag.fileloc = str(tmp_path / "dag.py")


@pytest.fixture
def logged():
    """What was logged, as one text a line: level and message."""
    with structlog.testing.capture_logs() as records:
        yield lambda: [
            f"{record['log_level']}: {line}"
            for record in records
            for line in _message(record).split("\n")
        ]


def _message(record):
    arguments = record.get("positional_args", ())
    return str(record["event"]) % tuple(arguments) if arguments else str(record["event"])


@pytest.fixture(autouse=True)
def own_signal_handlers():
    """Airflow's task runner sets a handler for SIGTERM and leaves it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def left_on_disk():
    folder = Path(tempfile.gettempdir(), f"elastic-launch-{os.getuid()}")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def until(condition):
    """Wait until it holds, for a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_ranks_value_goes_to_xcom_and_nothing_stays_on_disk(dag, tmp_path):
    factor = 10

    def train(base, run_id, ds, *, params, offset=0):
        rank = int(os.environ["RANK"])
        return {"value": base * factor + rank + offset, "run": run_id, "ds": ds, "lr": params["lr"]}

    dag.params["lr"] = 0.5
    task = elastic_task(nproc_per_node=2, task_id="train")(train)(4).operator
    dag.fileloc = str(tmp_path / "dag.py")
    outcome = run_task(task, run_id="r1")
    expected = [{"value": 40 + rank, "run": "r1", "ds": "2026-11-22", "lr": 0.5} for rank in (0, 1)]
    assert (outcome.state, outcome.error) == ("success", None)
    assert outcome.xcoms == {
        "return_value": {"0": expected[0], "1": expected[1]},
        "rank_0": expected[0],
        "rank_1": expected[1],
    }
    assert left_on_disk() == []


@warm
def test_airflows_own_exceptions_mean_in_a_rank_what_they_mean_in_any_task(dag, logged):
    def skips():
        logging.getLogger("train").info("nothing to do for %s", os.environ["RANK"])
        logging.getLogger("train").warning("really")
        if os.environ["RANK"] == "1":
            from airflow.sdk.exceptions import AirflowSkipException

            raise AirflowSkipException("no new data")
        time.sleep(60)

    outcome = run_task(elastic_task(nproc_per_node=2, task_id="skips")(skips)().operator)
    assert (outcome.state, outcome.error) == ("skipped", None)
    lines = logged()
    assert "info: [rank 1] INFO:train:nothing to do for 1" in lines
    assert "warning: [rank 1] WARNING:train:really" in lines
    assert not [line for line in lines if "restart 1 of" in line]

    def fails():
        from airflow.sdk.exceptions import AirflowFailException

        class NoData(AirflowFailException):
            pass

        raise NoData("none at all")

    outcome = run_task(elastic_task(task_id="fails")(fails)().operator)
    assert outcome.state == "failed"  # with tries left
    assert type(outcome.error) is AirflowFailException
    assert "NoData: none at all" in str(outcome.error)
    assert "after 0 of 3 restarts" in str(outcome.error)


def test_an_interpreter_without_torch_is_bad_configuration_at_once(dag, tmp_path, logged):
    import msgspec

    (tmp_path / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    task = ElasticLaunchOperator(
        task_id="train",
        entrypoint="true",
        python=sys._base_executable,
        env={"PYTHONPATH": str(tmp_path)},
    )
    outcome = run_task(task)
    assert outcome.state == "failed"  # with tries left
    assert f"python '{sys._base_executable}' has no torch; install" in str(outcome.error)
    assert len([line for line in logged() if "launching true" in line]) == 1


@warm
def test_arguments_from_upstream_tasks_arrive_as_plain_values_and_nothing_from_airflows_process(
    dag, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler", "--no-colour"])
    before = BaseOperator(task_id="before")
    mapped = BaseOperator.partial(task_id="mapped").expand(doc=["a", "b", "c"])

    def train(one, many):
        return [one, type(many).__name__, many, sys.argv, sys.stdin.read()]

    from airflow.sdk import XComArg

    task = elastic_task(task_id="train")(train)(before.output, {"all": XComArg(mapped)}).operator
    with standard_input(b"for Airflow's process"):
        outcome = run_task(task, upstream={"before": {"lr": 0.1}, "mapped": [1, 2, 3]})
    assert outcome.error is None
    assert outcome.xcoms["rank_0"] == [{"lr": 0.1}, "dict", {"all": [1, 2, 3]}, ["train"], ""]


@warm
def test_a_task_that_pushes_nothing_pushes_nothing(dag):
    task = elastic_task(task_id="train", do_xcom_push=False)(lambda: 1)().operator
    outcome = run_task(task)
    assert (outcome.state, outcome.xcoms) == ("success", {})


def test_a_script_beside_the_dag_file_runs_with_its_arguments_and_the_users_environment(
    dag, tmp_path, monkeypatch, logged
):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "in_plugins.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(plugins)])  # as Airflow does
    (tmp_path / "train.py").write_text(
        "import os, sys, in_plugins\nprint('args', sys.argv[1:], os.environ['MINE'], os.getcwd())\n"
    )
    task = ElasticLaunchOperator(
        task_id="train",
        entrypoint="train.py",
        op_args=["--run", "{{ run_id }}", 3],
        env={"MINE": "{{ ds }}"},
        cwd=".",
        nproc_per_node="2",
    )
    dag.fileloc = str(tmp_path / "dag.py")
    outcome = run_task(task, run_id="r1")
    assert outcome.xcoms["return_value"] == {"0": None, "1": None}
    for rank in (0, 1):
        line = f"info: [rank {rank}] args ['--run', 'r1', '3'] 2026-11-22 {tmp_path}"
        assert line in logged()


def test_modules_beside_the_dag_file_are_found_and_hide_none_of_the_library(
    dag, tmp_path, monkeypatch
):
    """Neither those in the folder of DAGs nor those in the working directory. In the task, the
    library is loaded before its path has these folders; an agent and its ranks still load it.
    """
    (tmp_path / "beside.py").write_text(
        "from airflow.sdk import DAG\ndef train(n): return [n, DAG.__name__]\n"
    )
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    for path in (tmp_path / "platform.py", cwd / "json.py"):
        path.write_text("raise ImportError('this is not the library')\n")
    monkeypatch.syspath_prepend(tmp_path)
    task = ElasticLaunchOperator(
        task_id="train", entrypoint="beside:train", op_kwargs={"n": 5}, cwd=str(cwd)
    )
    dag.fileloc = str(tmp_path / "dag.py")
    outcome = run_task(task)
    assert (outcome.error, outcome.xcoms.get("rank_0")) == (None, [5, "DAG"])


@warm
def test_a_rank_that_fails_fails_the_task_for_airflow_to_retry_and_its_files_are_kept(dag, logged):
    def train():
        if os.environ["RANK"] == "1":
            raise ValueError("the loss is NaN")

    task = elastic_task(task_id="train", nproc_per_node=2, max_restarts=0)(train)().operator
    outcome = run_task(task)
    assert outcome.state == "up_for_retry"
    assert isinstance(outcome.error, WorkersFailedError)
    first, *lines = str(outcome.error).splitlines()
    assert first == "train failed: rank 1: ValueError: the loss is NaN"
    assert "  failure class: user code" in lines
    told = "".join(traceback.format_exception(outcome.error))
    assert told.count("failed: rank 1") == 1, "once, and not again for a cause"
    frames = [frame.name for frame in traceback.extract_tb(outcome.error.__traceback__)]
    assert frames[-1] == "execute", "nothing of ours or tenacity's between Airflow and the report"
    assert outcome.xcoms == {}
    (folder,) = left_on_disk()
    assert any("log files are kept in" in line and folder in line for line in logged())


@warm
@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"entrypoint": "no_such_module:train"}, "no_such_module"),
        ({"entrypoint": "json:no_such_function"}, "no_such_function"),
        ({"entrypoint": "true", "log_dir": "/proc/nowhere"}, "log_dir '/proc/nowhere' cannot be"),
        ({"entrypoint": "-m no_such_module"}, "no_such_module"),
    ],
)
def test_what_only_the_agent_can_find_wrong_fails_the_task_for_good_too(dag, parameters, text):
    outcome = run_task(ElasticLaunchOperator(task_id="train", **parameters))
    assert outcome.state == "failed"
    assert isinstance(outcome.error, LaunchError)
    assert outcome.error.failure_class is FailureClass.BAD_CONFIGURATION
    assert text in str(outcome.error)
    assert "elastic-launch" not in str(outcome.error)  # no word of a folder that has gone
    assert left_on_disk() == []


@warm
def test_a_value_that_xcom_cannot_hold_fails_the_task_for_good_and_nothing_is_lost(dag):
    def train():
        return {"model": b"raw"} if os.environ["RANK"] == "0" else "fine"

    outcome = run_task(elastic_task(task_id="train", nproc_per_node=2)(train)().operator)
    assert outcome.state == "failed"
    assert outcome.error.failure_class == "result"
    assert outcome.xcoms == {"rank_1": "fine"}
    told = str(outcome.error)
    assert "rank 0: value['model'] is bytes, which XCom cannot hold" in told
    (folder,) = left_on_disk()
    assert folder.startswith("job.train.manual__2026-11-22T09")
    assert folder.endswith(".try_1.results")
    (kept,) = (user_folder() / folder).iterdir()
    assert f"pickle.load(open({str(kept)!r}, 'rb'))" in told
    assert pickle.loads(kept.read_bytes()) == {"model": b"raw"}
    assert kept.parent.stat().st_mode & 0o77 == 0
    shutil.rmtree(kept.parent)


@warm
def test_what_airflow_does_not_take_is_kept_and_does_not_repeat_the_job(dag, monkeypatch):
    def refuse(*_, key, **__):
        if key == "rank_0":
            raise OverflowError("it is too long")

    monkeypatch.setattr(RuntimeTaskInstance, "xcom_push", refuse)
    outcome = run_task(elastic_task(task_id="train")(lambda: {"loss": 0.5})().operator)
    assert (outcome.state, outcome.error.failure_class) == ("failed", "result")
    told = str(outcome.error)
    assert "rank 0: Airflow did not take what it returned: OverflowError: it is too long" in told
    (folder,) = left_on_disk()
    (kept,) = (user_folder() / folder).iterdir()
    assert f"import json; value = json.load(open({str(kept)!r}))" in told
    assert json.loads(kept.read_text()) == {"loss": 0.5}
    shutil.rmtree(kept.parent)


def test_a_try_that_follows_one_which_died_of_what_is_not_tried_again_fails_at_once(dag):
    """The record of the tries is Airflow's to keep, and what an agent has left is on this host's
    disk.
    """
    spent = TriesRecord(life=3, try_number=3, open=True, retried={"hang": 2})
    store = {KEY: spent.to_json()}
    stuck = failure(failure_class=FailureClass.HANG)
    text = "rank 3: stuck\nand more"
    end = JobFailed("WorkersFailedError", text, False, JobFailure.of(stuck))
    slug = TaskKey("job", "train", "r1").slug(deployment())
    AgentRecord(launch="3", pid=2**22 + 1, mark="m", grace_period=1, task_gone=True, end=end).write(
        user_folder() / f"{slug}.agent_record"
    )
    task = ElasticLaunchOperator(task_id="train", entrypoint="true")
    outcome = run_task(task, run_id="r1", store=store, max_tries=3, try_number=4)
    assert outcome.state == "failed"
    assert isinstance(outcome.error, NoMoreTriesError)
    assert (outcome.error.failure_class, outcome.error.failure) == (FailureClass.HANG, stuck)
    assert "try 3 was lost: its job had failed: rank 3: stuck)" in str(outcome.error)
    assert store[KEY]["open"] is False
    assert left_on_disk() == []


@contextmanager
def signal_to_this_process(number, once):
    """Sends the signal when ``once`` holds, from a thread."""

    def send():
        until(once)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        sender.join()


@pytest.fixture
def sleeps():
    """A function that ranks need not import with this file, and Airflow with it."""

    def sleeps():
        print("asleep", flush=True)
        time.sleep(600)

    return sleeps


@warm
def test_a_timeout_ends_the_job_before_it_is_raised(dag, logged, sleeps):
    task = elastic_task(
        nproc_per_node=2, grace_period=5, execution_timeout=dt.timedelta(minutes=5)
    )(sleeps)().operator
    # The alarm that Airflow has set for then, before its time.
    with signal_to_this_process(signal.SIGALRM, lambda: "info: [rank 1] asleep" in logged()):
        outcome = run_task(task)
    assert isinstance(outcome.error, AirflowTaskTimeout)
    assert any("interrupted by AirflowTaskTimeout" in line for line in logged()), logged()


@warm
def test_a_signal_that_airflow_sends_ends_the_job(dag, logged, sleeps):
    task = elastic_task(nproc_per_node=2, grace_period=5)(sleeps)().operator
    with signal_to_this_process(signal.SIGTERM, lambda: "info: [rank 1] asleep" in logged()):
        outcome = run_task(task)
    assert isinstance(outcome.error, StoppedError)
    assert "Airflow asked the task to end" in str(outcome.error)


@pytest.fixture
def other_python(tmp_path):
    """An environment of its own that has all that this one has, but Airflow."""
    home = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (target,) = home.glob("lib/python*/site-packages")
    (source,) = (path for path in map(Path, sys.path) if path.name == "site-packages")
    for entry in source.iterdir():
        if not entry.name.startswith(("airflow", "apache_airflow", "_pytest")):
            (target / entry.name).symlink_to(entry)
    # The project itself, as its installation lists it; nothing of the name begins with "airflow".
    for entry in source.glob("*airflow_provider_elastic_launch*"):
        if not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)
    return home / "bin" / "python"


def test_the_agent_may_run_under_an_interpreter_without_airflow(dag, other_python):
    def train():
        import importlib.util
        import sys

        return [sys.prefix, importlib.util.find_spec("airflow") is None]

    task = elastic_task(task_id="train", python=str(other_python))(train)().operator
    outcome = run_task(task)
    assert outcome.error is None
    assert outcome.xcoms["rank_0"] == [str(other_python.parents[1]), True]


@warm
@pytest.mark.fault
def test_what_the_agent_says_after_its_task_was_killed_is_shown_by_the_next_try(
    dag, logged, tmp_path
):
    """The task's process is killed; its agent ends the job, in a session of its own, and writes a
    file.
    """

    running = tmp_path / "running"

    def train():
        import time

        running.touch()
        for number in range(600):
            print("round", number, flush=True)
            time.sleep(0.1)

    task = elastic_task(task_id="train", grace_period=5)(train)().operator
    dag.fileloc = str(tmp_path / "dag.py")
    task_process = fork()
    if task_process == 0:
        try:
            run_task(task, try_number=1)
        finally:
            os._exit(1)
    until(running.exists)
    os.kill(task_process, signal.SIGKILL)
    os.waitpid(task_process, 0)
    folder = Path(tempfile.gettempdir(), f"elastic-launch-{os.getuid()}")
    until(lambda: any("the job ended" in path.read_text() for path in folder.glob("*.orphan_log")))

    outcome = run_task(ElasticLaunchOperator(task_id="again", entrypoint="true"), try_number=2)
    assert (outcome.state, "previous" in str(logged())) == ("success", False)  # another task's
    with DAG("job") as same_dag:
        again = ElasticLaunchOperator(task_id="train", entrypoint="true")
    same_dag.fileloc = dag.fileloc
    assert run_task(again, try_number=2).state == "success"
    shown = [line for line in logged() if "[previous try]" in line]
    assert any("its Airflow task is gone" in line for line in shown), shown
    assert list(folder.glob("*.orphan_log")) == []


@warm
@pytest.mark.fault
def test_a_task_that_is_killed_at_any_moment_leaves_no_process(dag, monkeypatch):
    """Ten times, from its start to workers that run. What is left is looked for when the test
    ends.
    """
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    task = ElasticLaunchOperator(
        task_id="train", entrypoint="sleep", op_args=["3600"], nproc_per_node=2, grace_period=2
    )
    for turn in range(10):
        task_process = fork()
        if task_process == 0:
            try:
                if turn < 5:  # in the time in which an agent imports torch
                    monkeypatch.setattr(process, "subprocess", subprocess)
                run_task(task)
            finally:
                os._exit(1)
        step = 0.4 if turn < 5 else 0.2
        time.sleep(moments.uniform(step * (turn % 5), step * (turn % 5 + 1)))
        os.kill(task_process, signal.SIGKILL)
        os.waitpid(task_process, 0)
