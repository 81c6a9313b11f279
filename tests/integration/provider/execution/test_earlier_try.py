"""The agent of an earlier try that still lives: waited for, ended by force, or told from a
stranger.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import uuid

import pytest
from msgspec.structs import replace

from airflow_provider.execution.earlier_try import await_earlier_try
from llutil.errors import StoppedError
from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.process_table import stat_of
from llutil.task_link.agent_record import AgentRecord
from tests.support.launches import is_alive

pytestmark = pytest.mark.fault

LOG = logging.getLogger("task")
SLEEP = "import time; print(flush=True); time.sleep(60)"
LET_GO = "import sys; print(flush=True); sys.stdin.read(); "
"""It ends, once it has done what follows, when the test closes its standard input."""
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(sleep, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "job.agent_record"


@pytest.fixture
def agent(path):
    """Starts what stands for an agent of an earlier try, and writes what it leaves; its first
    line.
    """
    started = []

    def start(code, **fields):
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, MARK_VARIABLE: mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        given = {"launch": "1", "pid": process.pid, "mark": mark, "grace_period": 30.0} | fields
        AgentRecord(**given).write(path)
        return process, process.stdout.readline().decode().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def let_go(process):
    """Lets the agent end as soon as somebody waits for it; what that one asks to know of a stop."""

    def stopped():
        process.stdin.close()
        return False

    return stopped


def test_where_nobody_was_nobody_is_waited_for(path):
    assert await_earlier_try(path, LOG) is None


def test_a_try_waits_for_an_agent_that_ends_within_its_grace(path, agent, caplog):
    caplog.set_level(logging.INFO)
    process, _ = agent(LET_GO)
    left = await_earlier_try(path, LOG, stopped=let_go(process))
    assert left is not None
    assert process.wait(10) == 0, "it ended by itself"
    waited, ended = (record.getMessage() for record in caplog.records)
    assert (
        f"(try 1, pid {process.pid}) still runs on this host; its grace period is 30 s; this "
        "try waits for it, at most 95 s" in waited
    )
    assert "has ended after" in ended


def test_what_the_agent_writes_last_is_what_counts(path, agent):
    process, _ = agent(
        LET_GO + "from msgspec.structs import replace; "
        "from llutil.task_link.agent_record import AgentRecord; "
        f"replace(AgentRecord.read({str(path)!r}), task_gone=True).write({str(path)!r})"
    )
    assert not AgentRecord.read(path).task_gone
    assert await_earlier_try(path, LOG, stopped=let_go(process)).task_gone


def test_an_agent_that_does_not_end_is_ended_with_all_of_its_job(path, agent, caplog):
    process, child = agent(STUBBORN)
    began = time.monotonic()
    left = await_earlier_try(path, LOG, patience=1.0)
    assert 1 <= time.monotonic() - began < 15
    assert left is not None
    assert process.wait(10) == -9
    assert not is_alive(int(child))
    assert "it and all processes of its job get SIGKILL" in caplog.text


def test_a_stop_ends_the_wait_and_leaves_the_agent_its_grace(path, agent):
    process, _ = agent(SLEEP)
    began = time.monotonic()
    with pytest.raises(StoppedError, match="while it waited for the agent of an earlier try"):
        await_earlier_try(path, LOG, stopped=lambda: time.monotonic() > began + 0.2)
    assert process.poll() is None
    assert path.exists()


@pytest.mark.parametrize(("asked", "seconds"), [("the task was cleared", 95), ("", 35)])
def test_a_job_that_nobody_has_asked_to_end_is_waited_for_less_long(
    path, agent, caplog, asked, seconds
):
    """Its task lives, as where Airflow has lost sight of it: neither of them ends by itself."""
    agent(SLEEP, stop_reason=asked, **living_task())
    with pytest.raises(StoppedError):
        await_earlier_try(path, LOG, stopped=lambda: True)
    assert f"this try waits for it, at most {seconds} s" in caplog.text


def test_a_job_that_is_asked_to_end_meanwhile_gets_its_whole_grace_period(path, agent, caplog):
    agent(SLEEP, **living_task())
    looks = []

    def stopped():
        replace(AgentRecord.read(path), task_gone=True).write(path)
        looks.append(1)
        return len(looks) == 2

    with pytest.raises(StoppedError):
        await_earlier_try(path, LOG, stopped=stopped)
    assert "asked to end; this try waits at most 95 s more" in caplog.text


def living_task():
    """The record's fields for a task that lives and is not this process: the one that started
    it.
    """
    task = stat_of(os.getppid())
    assert task is not None
    return {"task_pid": task.pid, "task_start_ticks": str(task.start)}


def test_a_stranger_who_has_got_the_agents_number_is_left_alone(path, agent, caplog):
    process, _ = agent(SLEEP, mark="of another job")
    assert await_earlier_try(path, LOG, patience=0.0) is not None
    assert process.poll() is None
    assert caplog.records == []


def test_a_number_that_nobody_has_is_nobody(path):
    AgentRecord(launch="1", pid=2**22 + 1, mark="m", grace_period=30).write(path)
    assert await_earlier_try(path, LOG) == AgentRecord(
        launch="1", pid=2**22 + 1, mark="m", grace_period=30
    )


def test_workers_that_outlive_a_killed_agent_are_ended_before_the_next_try(path, agent):
    process, child = agent(STUBBORN)
    process.kill()
    process.wait()
    await_earlier_try(path, LOG)
    assert not is_alive(int(child))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 99}', '{"version": 2, "pid": "x"}'])
def test_what_is_no_legacy_is_told_and_not_heeded(path, text, caplog):
    path.write_text(text)
    assert await_earlier_try(path, LOG) is None
    assert "cannot be read, and is ignored" in caplog.text
