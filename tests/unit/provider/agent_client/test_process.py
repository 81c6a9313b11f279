"""The agent's process is owned from its start, whatever the task cannot open then or later."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from airflow_provider.agent_client.environment import TaskPaths
from airflow_provider.agent_client.process import AgentSubprocess
from llutil.errors import ConfigError, InfrastructureError, LaunchError
from llutil.system.process_table import children_of_this_process
from tests.support.descriptors import open_descriptors
from tests.support.forks import in_a_fork


def start_agent(folder: Path, **env: str) -> AgentSubprocess:
    """A program in an agent's place, which ends by a signal only."""
    python = folder / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o700)
    return AgentSubprocess(str(python), None, {**os.environ, **env}, {}, TaskPaths([], []))


def held() -> tuple[set[int], set[int]]:
    """The descriptors and the children of this process."""
    return open_descriptors(), {*children_of_this_process()}


def no_descriptors(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, "no more descriptors")


@in_a_fork
def test_an_agent_of_which_no_descriptor_can_be_had_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held()
    with monkeypatch.context() as patches:
        patches.setattr(os, "pidfd_open", no_descriptors)
        with pytest.raises(OSError, match="no more descriptors"):
            start_agent(tmp_path)
    assert held() == before


@in_a_fork
def test_an_agent_can_be_killed_by_a_task_that_can_open_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held()
    agent = start_agent(tmp_path)
    with monkeypatch.context() as patches:
        patches.setattr(os, "pidfd_open", no_descriptors)
        patches.setattr(os, "open", no_descriptors)
        agent.kill()
    os.waitid(os.P_PID, agent.pid, os.WEXITED | os.WNOWAIT)
    assert agent.poll() == -signal.SIGKILL
    agent.close()
    agent.close()
    assert held() == before


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EAGAIN, InfrastructureError, "this worker cannot start another process: no further"),
        (errno.ENOMEM, InfrastructureError, "this worker cannot start another process: it has no"),
        (errno.EMFILE, InfrastructureError, "this worker cannot start another process: this proc"),
        (errno.ENFILE, InfrastructureError, "this worker cannot start another process: this mach"),
        (errno.ESTALE, InfrastructureError, "the file system of '.*/python' does not answer"),
        (errno.EIO, InfrastructureError, "the file system of '.*/python' does not answer"),
        (errno.ENOTCONN, InfrastructureError, "the file system of '.*/python' does not answer"),
        (errno.ENOENT, ConfigError, "python '.*/python' cannot be started on this worker"),
        (errno.EACCES, ConfigError, "python '.*/python' cannot be started on this worker"),
    ],
)
@in_a_fork
def test_a_machine_that_can_start_no_process_now_is_no_wrong_interpreter(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[LaunchError],
    text: str,
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    before = held()
    with monkeypatch.context() as patches:
        patches.setattr(subprocess, "Popen", refuse)
        with pytest.raises(kind, match=text) as raised:
            start_agent(tmp_path)
    assert raised.value.retryable is (kind is InfrastructureError)
    assert held() == before


@in_a_fork
def test_a_variable_that_this_worker_cannot_write_is_named_without_its_value(
    tmp_path: Path,
) -> None:
    before = held()
    with pytest.raises(ConfigError, match="the variable 'DATA' holds a character") as raised:
        start_agent(tmp_path, DATA="secret \ud800")
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert held() == before


def test_an_environment_that_the_kernel_does_not_take_is_named_without_its_value(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="variable is 'DATA', of 200000 characters") as raised:
        start_agent(tmp_path, DATA="secret" + "x" * 199_994)
    assert "secret" not in str(raised.value)
