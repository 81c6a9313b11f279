"""What a hook knows of its job's success when an alarm ends the task; the agent is played."""

from __future__ import annotations

import errno
import socket

import pytest
import structlog

from airflow_provider.hooks.agent import AgentHook
from llutil.entrypoint import Command
from llutil.errors import ConfigError, InfrastructureError, ResultError, WorkersFailedError
from llutil.failure import FailureClass, JobFailure
from llutil.launcher.config import LaunchConfig
from llutil.progress.log_lines import ProgressLines
from llutil.task_link.messages import Hello, JobFailed, JobSucceeded, Result, Spec, encode

SPEC = Spec(
    config=LaunchConfig(1, 1, 1),
    entrypoint=Command("x"),
    result_limit=100,
    orphan_log="/dev/null",
)
SUCCEEDED = JobSucceeded((0,))


class Alarm(BaseException):
    """What Airflow's alarm raises is no Exception either."""


def ring(*_):
    raise Alarm


class AlarmedDisplay(ProgressLines):
    """The alarm comes after the job's end, when the last line is shown."""

    def close(self):
        raise Alarm


class PlayedAgent:
    """An agent that has said these things and has ended."""

    pid, python, pipes = 1, "python", {}

    def __init__(self, *messages):
        self.socket, self._other_side = socket.socketpair()
        self.socket.setblocking(False)
        self._other_side.sendall(b"".join(map(encode, messages)))

    def poll(self):
        return 0

    def close(self):
        self.socket.close()
        self._other_side.close()


class PlayedHook(AgentHook):
    """A hook whose agents end their job by these messages, one after the other."""

    def __init__(self, *ends, **options):
        super().__init__(python="/no/agent/is/to/be/started", **options)
        self._ends = list(ends)

    def _start(self, results, secrets):
        return PlayedAgent(Hello(1, "python"), Result(0, 7), self._ends.pop(0))


def failed(error, failure_class):
    return JobFailed(error, "the report", False, JobFailure(failure_class=failure_class))


@pytest.mark.parametrize(
    "alarm",
    [{"on_hello": ring}, {"display": AlarmedDisplay(print)}],
    ids=["while it relays", "later"],
)
@pytest.mark.parametrize(
    "end", [SUCCEEDED, failed("ResultError", FailureClass.RESULT)], ids=["all", "one is missing"]
)
def test_the_values_of_a_job_that_has_succeeded_are_known_whenever_the_alarm_comes(end, alarm):
    hook = PlayedHook(end, **alarm)
    with pytest.raises(Alarm):
        hook.run(SPEC)
    assert hook.returned == {0: 7}


def test_the_log_says_that_a_job_has_succeeded_whose_task_an_alarm_has_ended():
    hook = PlayedHook(SUCCEEDED, on_hello=ring)
    with structlog.testing.capture_logs() as logged, pytest.raises(Alarm):
        hook.run(SPEC)
    told = [one["event"] for one in logged if one["log_level"] == "warning"]
    assert told == ["the job has succeeded nevertheless"]


def test_the_values_of_a_job_that_has_failed_are_none():
    hook = PlayedHook(SUCCEEDED, failed("WorkersFailedError", FailureClass.USER_CODE))
    assert hook.run(SPEC) == hook.returned == {0: 7}
    with pytest.raises(WorkersFailedError):
        hook.run(SPEC)
    assert hook.returned is None


def test_a_value_that_cannot_be_handed_on_leaves_the_others():
    hook = PlayedHook(failed("ResultError", FailureClass.RESULT))
    with pytest.raises(ResultError):
        hook.run(SPEC)
    assert hook.returned == {0: 7}


@pytest.fixture
def no_working_directory(tmp_path, monkeypatch):
    """The working directory of this process is removed."""
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()


def test_a_task_without_a_working_directory_says_so(no_working_directory):
    with pytest.raises(ConfigError, match="the working directory of this task was removed; give"):
        AgentHook(python="/no/such/python").run(SPEC)


def test_a_removed_working_directory_is_not_missed_where_the_agent_has_one(
    no_working_directory, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", f"relative:{tmp_path}")
    monkeypatch.syspath_prepend("")
    agent = AgentHook(python="/bin/true", cwd=str(tmp_path))._start(None, {})
    agent.kill()
    agent.close()


def test_a_task_that_has_no_descriptors_left_may_be_tried_again(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, "no more descriptors")

    monkeypatch.setattr(socket, "socketpair", refuse)
    with pytest.raises(InfrastructureError, match="open files"):
        AgentHook(python="/bin/true").run(SPEC)
