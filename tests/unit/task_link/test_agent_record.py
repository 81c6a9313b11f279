"""What an agent leaves for the next try, read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from llutil.errors import ConfigError
from llutil.task_link.agent_record import AgentRecord
from tests.support.no_room import no_room

RECORD = AgentRecord(launch="1", pid=7, mark="m\u00e4rk", grace_period=30.0, stop_reason="\udcff")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "record"
    assert AgentRecord.read(path) is None
    RECORD.write(path)
    assert AgentRecord.read(path) == RECORD


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff\xfe{}", b"\x00" * 200, b"[" * 100_000, b'{"version": 99}'],
)
def test_what_is_no_record_is_an_error_that_shows_its_beginning(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "record"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not what an agent of this version leaves: b'"):
        AgentRecord.read(path)


def test_a_record_that_there_is_no_room_for_leaves_nothing_and_the_old_one_stays(
    tmp_path: Path,
) -> None:
    RECORD.write(tmp_path / "record")
    with no_room(), pytest.raises(OSError, match="File too large"):
        RECORD.write(tmp_path / "record")
    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    assert AgentRecord.read(tmp_path / "record") == RECORD
