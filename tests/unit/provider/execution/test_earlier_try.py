"""An earlier try is ended by what its record says, and nobody else is."""

from __future__ import annotations

import logging
import signal
import subprocess
from pathlib import Path

import pytest

from airflow_provider.execution import earlier_try
from airflow_provider.execution.earlier_try import await_earlier_try
from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.process_table import stat_of
from llutil.task_link.agent_record import AgentRecord

LOG = logging.getLogger("test")


def start_of(pid: int) -> str:
    stat = stat_of(pid)
    assert stat is not None
    return str(stat.start)


@pytest.mark.parametrize("whose", ["process 1's", "another's by now"])
def test_a_task_that_a_record_names_is_killed_only_if_it_is_that_process(
    whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's task was gone before it noted it, or its number has become a stranger's."""
    mark = "a mark of this test"
    with (
        subprocess.Popen(["sleep", "60"], env={MARK_VARIABLE: mark}) as agent,
        subprocess.Popen(["sleep", "60"], process_group=0) as stranger,
    ):
        task = 1 if whose == "process 1's" else stranger.pid
        start = start_of(1) if task == 1 else str(int(start_of(task)) - 1)
        path = tmp_path / "record"
        AgentRecord(
            launch="1",
            pid=agent.pid,
            mark=mark,
            grace_period=0,
            task_pid=task,
            task_start_ticks=start,
        ).write(path)
        signalled: list[object] = []
        monkeypatch.setattr(earlier_try, "send_signal", lambda *args, **_: signalled.append(args))
        assert await_earlier_try(path, LOG, patience=0) is not None
        assert agent.wait() == -signal.SIGKILL
        assert stranger.poll() is None
        assert signalled == []
        stranger.kill()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_record_that_nobody_can_read_keeps_no_try_from_beginning(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "record"
    path.write_bytes(content)
    assert await_earlier_try(path, LOG) is None
    assert "the file of an earlier try's agent cannot be read, and is ignored" in caplog.text
