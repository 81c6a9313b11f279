"""What an agent tells its task of a failure, and what it leaves when its task is gone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from llutil.failure import FailureClass
from llutil.task_link import messages
from llutil.task_link.agent_record import AgentRecord
from tests.integration.agent_process import saving_functions
from tests.integration.agent_process.test_agent_process import pids, wait_for_ranks
from tests.support.fake_task import FakeTask, spec, worker_function
from tests.support.launches import wait_until

pytestmark = [pytest.mark.launch, pytest.mark.fault, pytest.mark.usefixtures("warm_agents")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.agent_record"


def leaving(path: Path, job: messages.Spec) -> messages.Spec:
    return replace(job, agent_record=str(path), launch="3")


def test_a_failure_reaches_the_task_with_its_fields_and_is_on_disk_before_that(
    path: Path, folder: str
) -> None:
    job = spec(worker_function("progress_and_fail_twice"), folder, max_restarts=1)
    with FakeTask(leaving(path, job)) as task:
        last = task.verdict()
        left = AgentRecord.read(path)
    failure = last.job_failure.failure
    assert (failure.rank, failure.group_rank, failure.restart) == (0, 0, 1)
    assert failure.step == 9, "made before the restart"
    assert failure.failure_class is FailureClass.USER_CODE
    assert failure.reason == "ValueError: again"
    assert "in progress_and_fail_twice" in failure.trace
    assert failure.host == os.uname().nodename
    assert left is not None
    assert left.end == last


def test_what_an_agent_leaves_says_who_it_is_while_it_runs_and_in_the_end_how_it_ended(
    path: Path, folder: str
) -> None:
    job = leaving(path, spec(worker_function("save_when_stopped", folder, 0.5), folder, grace=20))
    with FakeTask(job) as task:
        wait_for_ranks(task, folder, 1)
        found = AgentRecord.read(path)
        assert found is not None
        assert (found.launch, found.pid, found.grace_period) == ("3", task.process.pid, 20)
        assert (found.task_gone, found.stop_reason, found.end) == (False, "", None)
        environment = Path(f"/proc/{pids(folder)[0]}/environ").read_bytes()
        assert f"LLUTIL_JOB={found.mark}".encode() in environment.split(b"\0")
        task.hang_up()
    left = AgentRecord.read(path)
    assert left is not None
    assert (left.task_gone, left.stop_reason, left.kills) == (True, "", 0)
    assert isinstance(left.end, messages.JobFailed)
    assert left.end.job_failure.failure_class is FailureClass.PREEMPTION
    assert "its Airflow task is gone" in left.end.report
    assert [file.name for file in path.parent.glob("job.agent_record*")] == ["job.agent_record"]


def test_a_task_that_was_asked_to_end_before_it_was_killed_is_known_by_that(
    path: Path, folder: str
) -> None:
    saves = worker_function("save_until_told", folder, module=saving_functions.__name__)
    with FakeTask(leaving(path, spec(saves, folder, grace=60))) as task:
        wait_for_ranks(task, folder, 1)
        task.tell(messages.Stop("Airflow asked the task to end"))
        asked = "Airflow asked the task to end"
        assert wait_until(lambda: (found := AgentRecord.read(path)) and found.stop_reason == asked)
        task.hang_up()
        assert wait_until(lambda: (found := AgentRecord.read(path)) and found.task_gone)
        Path(folder, "told").touch()
    left = AgentRecord.read(path)
    assert left is not None
    assert (left.task_gone, left.stop_reason) == (True, asked)


def test_an_agent_that_is_killed_has_left_who_it_was(path: Path, folder: str) -> None:
    with FakeTask(leaving(path, spec(worker_function("sleep", folder), folder))) as task:
        wait_for_ranks(task, folder, 1)
        os.kill(task.process.pid, signal.SIGKILL)
    left = AgentRecord.read(path)
    assert left is not None
    assert (left.pid, left.task_gone, left.end) == (task.process.pid, False, None)


def test_a_file_that_cannot_be_written_stops_no_job(path: Path, folder: str) -> None:
    with FakeTask(leaving(path / "nowhere", spec(worker_function("rank_and", 1), folder))) as task:
        assert task.verdict() == messages.JobSucceeded((0,))
        told = [message.text for message in task.heard if isinstance(message, messages.LogRecord)]
    assert any("the agent's record for the next try could not be written" in text for text in told)
