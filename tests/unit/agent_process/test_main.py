"""The agent process hears a signal, whatever it interrupts."""

from __future__ import annotations

import queue
from types import SimpleNamespace

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
