"""The agent's process is owned from its start, whatever the task cannot open then or later."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import NoReturn

import pytest

from airflow_provider.agent_client.environment import TaskPaths
from airflow_provider.agent_client.process import AgentSubprocess
from llutil.system.process_table import children_of_this_process


def start_agent(folder: Path) -> AgentSubprocess:
    """A program in an agent's place, which ends by a signal only."""
    python = folder / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o700)
    return AgentSubprocess(str(python), None, os.environ, {}, TaskPaths([], []))


def held() -> tuple[set[str], set[int]]:
    """The descriptors and the children of this process."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}, {*children_of_this_process()}


def no_descriptors(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, "no more descriptors")


def test_an_agent_of_which_no_descriptor_can_be_had_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held()
    with monkeypatch.context() as patches:
        patches.setattr(os, "pidfd_open", no_descriptors)
        with pytest.raises(OSError, match="no more descriptors"):
            start_agent(tmp_path)
    assert held() == before


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
