"""Where words go once the task is gone: nothing that was printed is lost, and nothing blocks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llutil.agent_process.orphan_log import OrphanLog
from llutil.failure import FailureClass, JobFailure
from llutil.task_link.messages import (
    JobFailed,
    JobSucceeded,
    LogRecord,
    Message,
    OutputLines,
    Progress,
    Result,
)
from tests.unit.agent_process.stand_ins import streams


def test_what_the_task_had_not_read_and_what_comes_later_is_kept(tmp_path: Path) -> None:
    with streams() as readers:
        orphan_log = OrphanLog(readers)
        os.write(1, b"printed before\n")
        os.write(2, b"an error before\n")
        orphan_log.begin(str(tmp_path / "after.log"))
        os.write(1, b"printed after\n")
        os.write(2, b"an error after\n")
        text = (tmp_path / "after.log").read_text()
        assert text == "printed before\nan error before\nprinted after\nan error after\n"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (OutputLines(3, "stderr", "oh \udcff no"), "[rank 3] oh ? no\n"),
        (LogRecord("WARNING", "llutil.agent", "careful"), "WARNING careful\n"),
        (
            JobFailed(
                "StoppedError",
                "stopped\nby force",
                False,
                JobFailure(failure_class=FailureClass.PREEMPTION),
            ),
            "the job ended: stopped\nthe job ended: by force\n",
        ),
        (JobSucceeded((0, 1)), "the job succeeded after its task was gone; ranks (0, 1)\n"),
        (Result(0, 1.5), ""),
        (Progress({0: (1, 2)}), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else "",
)
def test_what_a_reader_needs_is_written(tmp_path: Path, message: Message, text: str) -> None:
    with streams() as readers:
        orphan_log = OrphanLog(readers)
        orphan_log.begin(str(tmp_path / "after.log"))
        orphan_log.take(message)
        assert (tmp_path / "after.log").read_text() == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (OutputLines(3, "stdout", "oh", prefix="node 1: "), "node 1: oh\n"),
        (OutputLines(3, "stdout", "oh\r[rank 4] no"), "[rank 3] oh\\x0d[rank 4] no\n"),
        (LogRecord("WARNING", "x", "oh\n[rank 4] no"), "WARNING oh\nWARNING [rank 4] no\n"),
    ],
    ids=["a prefix of the job's template", "another line of a rank", "another line of the agent"],
)
def test_each_line_begins_with_whose_it_is(tmp_path: Path, message: Message, text: str) -> None:
    with streams() as readers:
        orphan_log = OrphanLog(readers)
        orphan_log.begin(str(tmp_path / "after.log"))
        orphan_log.take(message)
        assert (tmp_path / "after.log").read_text() == text


def test_it_begins_once(tmp_path: Path) -> None:
    with streams() as readers:
        orphan_log = OrphanLog(readers)
        orphan_log.begin(str(tmp_path / "one.log"))
        orphan_log.begin(str(tmp_path / "two.log"))
        assert [path.name for path in tmp_path.iterdir()] == ["one.log"]


def test_the_file_is_for_its_owner_alone_and_is_appended_to(tmp_path: Path) -> None:
    with streams() as readers:
        (tmp_path / "after.log").write_text("an earlier try\n")
        OrphanLog(readers).begin(str(tmp_path / "after.log"))
        os.write(1, b"this one\n")
        assert (tmp_path / "after.log").read_text() == "an earlier try\nthis one\n"
        OrphanLog(()).begin(str(tmp_path / "new.log"))
        assert (tmp_path / "new.log").stat().st_mode & 0o777 == 0o600


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    with streams() as readers:
        (tmp_path / "after.log").symlink_to(tmp_path / "elsewhere")
        OrphanLog(readers).begin(str(tmp_path / "after.log"))
        os.write(1, b"words\n")
        assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    with streams() as readers:
        orphan_log = OrphanLog(readers)
        orphan_log.begin(str(tmp_path))
        os.write(1, b"x" * 1_000_000)
        orphan_log.take(OutputLines(0, "stdout", "words"))


def test_a_full_disk_stops_nobody() -> None:
    with streams() as readers:
        orphan_log = OrphanLog(readers)
        os.write(1, b"before")
        orphan_log.begin("/dev/full")
        orphan_log.take(OutputLines(0, "stdout", "words"))
