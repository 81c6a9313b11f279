"""The task that an agent's record names is its own, or none."""

from __future__ import annotations

import os
import socket

import pytest

from llutil.agent_process import task_process as module
from llutil.agent_process.task_process import task_process
from llutil.system.process_table import ProcessStat, stat_of


def test_the_task_is_the_process_that_made_the_socket_pair() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        own = stat_of(os.getpid())
        assert own is not None
        assert task_process(theirs) == (os.getpid(), str(own.start))


def test_a_task_that_is_gone_is_nobody_whoever_the_parent_is_by_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent is process 1 by then, or a supervisor that adopts orphans."""
    own = stat_of(os.getpid())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # The test's process is the task here, so the agent gets another number.
        monkeypatch.setattr(os, "getpid", lambda: 1 << 22)
        monkeypatch.setattr(module, "stat_of", {1 << 22: own}.get)
        assert task_process(theirs) == (0, "")


def test_a_process_that_has_the_tasks_number_and_is_younger_than_the_agent_is_not_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, task = 1 << 22, os.getpid()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr(os, "getpid", lambda: agent)
        starts = {task: 501, agent: 500}
        monkeypatch.setattr(
            module,
            "stat_of",
            lambda pid: ProcessStat(pid, parent=1, group=pid, session=pid, start=starts[pid]),
        )
        assert task_process(theirs) == (0, "")
        starts[task] = 400
        assert task_process(theirs) == (task, "400")
