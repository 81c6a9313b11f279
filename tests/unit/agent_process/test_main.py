"""The agent process hears a signal, whatever it interrupts; and its last resort ends it, whatever
fails.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import NoReturn

import pytest

from llutil.agent_process.main import _TaskAgent
from tests.unit.agent_process.stand_ins import HeldByThisThread


def test_a_signal_before_the_job_takes_no_lock_that_interrupted_code_may_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    agent = SimpleNamespace(_job_begun=False, _on_stop=heard.put)
    with HeldByThisThread().patched(monkeypatch):
        _TaskAgent._on_term(agent, 15, None)  # type: ignore[arg-type]
        assert heard.get(timeout=20) == "the agent got signal SIGTERM"


@pytest.mark.parametrize("end", [_TaskAgent._end_early, _TaskAgent._end_by_force])
def test_the_last_resort_ends_the_process_whatever_fails(
    end: Callable[[_TaskAgent], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The task cannot be told, and the processes of the job cannot be listed."""
    statuses: list[int] = []

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "too many open files")

    agent = object.__new__(_TaskAgent)
    agent._main_thread = threading.Thread()
    agent._mark, agent._grace_period, agent._stop_reason = "no mark", 0.0, "a test"
    agent._end_told = False
    monkeypatch.setattr(agent._main_thread, "join", lambda _: None)
    monkeypatch.setattr(agent, "_tell_end", fail)
    monkeypatch.setattr(os, "listdir", fail)
    monkeypatch.setattr(os, "_exit", statuses.append)
    with suppress(OSError):  # there is a process that goes on here
        end(agent)
    monkeypatch.undo()
    assert statuses == [1]
    assert "too many open files" in capfd.readouterr().err
