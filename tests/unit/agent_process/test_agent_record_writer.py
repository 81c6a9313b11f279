"""What an agent leaves about a task that was lost: only what the kernel has killed since the round
began counts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llutil.agent_process.agent_record_writer import AgentRecordWriter
from llutil.entrypoint import Command
from llutil.launcher.config import LaunchConfig
from llutil.system import oom_kills
from llutil.task_link.agent_record import AgentRecord
from llutil.task_link.messages import Spec


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the kernel counts, as far as agents of this test know."""
    where = tmp_path / "cgroup"
    where.mkdir()
    (where / "memory.events").write_text("oom_kill 0\n")
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/\n")
    (proc / "self" / "mountinfo").write_text(f"25 30 0:26 / {where} rw - cgroup2 cgroup2 rw\n")
    monkeypatch.setattr(oom_kills, "PROC", proc)
    return where / "memory.events"


def job(path: Path | str) -> Spec:
    return Spec(
        config=LaunchConfig(1, 1, 1, shutdown_timeout=5),
        entrypoint=Command("x"),
        result_limit=1,
        orphan_log="",
        agent_record=str(path),
        launch="2",
    )


def read(path: Path) -> AgentRecord:
    found = AgentRecord.read(path)
    assert found is not None
    return found


def test_a_task_that_went_when_the_kernel_killed_for_lack_of_memory(
    tmp_path: Path, counter: Path
) -> None:
    path = tmp_path / "agent_record"
    record_writer = AgentRecordWriter("m", (0, ""))
    record_writer.job_begins(job(path))
    counter.write_text("oom_kill 1\n")
    record_writer.round_began()
    counter.write_text("oom_kill 3\n")
    record_writer.stop_asked("its task is gone", task_gone=True)
    left = read(path)
    assert (left.launch, left.mark, left.task_gone, left.kills) == ("2", "m", True, 2)
    assert left.counted_by == f"the memory cgroup {counter.parent}"


def test_kills_before_the_round_are_not_about_this_task(tmp_path: Path, counter: Path) -> None:
    path = tmp_path / "agent_record"
    record_writer = AgentRecordWriter("m", (0, ""))
    record_writer.job_begins(job(path))
    counter.write_text("oom_kill 1\n")
    record_writer.round_began()
    record_writer.stop_asked("its task is gone", task_gone=True)
    assert read(path).kills == 0


def test_nothing_is_written_before_there_is_a_job_or_for_a_task_that_wants_nothing(
    tmp_path: Path, counter: Path
) -> None:
    record_writer = AgentRecordWriter("m", (0, ""))
    record_writer.stop_asked("enough", task_gone=False)
    record_writer.job_begins(job(""))
    record_writer.stop_asked("enough", task_gone=False)
    assert not (tmp_path / "agent_record").exists()
