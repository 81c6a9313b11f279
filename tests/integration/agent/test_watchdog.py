"""A rank that sets a timer by torch's client, and lets it expire, is ended; the job goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.launches import launch
from tests.support.threads import no_thread_left
from tests.support.timer_functions import let_a_timer_expire

pytestmark = pytest.mark.launch


def test_an_expired_timer_ends_the_rank_and_not_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = tmp_path / "pipe"
    monkeypatch.setenv("TORCHELASTIC_ENABLE_FILE_TIMER", "1")
    monkeypatch.setenv("TORCHELASTIC_TIMER_FILE", str(pipe))
    monkeypatch.setenv("TORCHELASTIC_HEALTH_CHECK_PORT", "12345")
    with no_thread_left():
        found = launch(let_a_timer_expire, os.getpid(), start_method="fork", max_restarts=1)
    assert found == {0: "in the second round"}
    assert "has expired; it gets signal 9" in caplog.text
    assert "No health check server started" in caplog.text
    assert not pipe.exists()
