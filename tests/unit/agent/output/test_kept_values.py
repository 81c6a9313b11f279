"""What ranks returned is kept in files, as it came; a disk that takes nothing is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from llutil.agent.output.kept_values import keep_values
from llutil.agent.worker_side.outcome_pipe import Returned


def test_each_value_lies_in_a_file_as_it_came_from_its_rank(tmp_path: Path) -> None:
    values = {0: Returned(b"[1]", pickled=False), 3: Returned(b"\x80", pickled=True), 4: None}
    for _ in range(2):
        assert keep_values(tmp_path, values) == f"what they returned is in {tmp_path / 'returned'}"
    kept = {file.name: file.read_bytes() for file in (tmp_path / "returned").iterdir()}
    assert kept == {"rank_0.json": b"[1]", "rank_3.pickle": b"\x80"}


def test_of_scripts_nothing_is_kept(tmp_path: Path) -> None:
    assert keep_values(tmp_path, {0: None, 1: None}) == "such ranks return no values"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("folder", ["gone", "file"])
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    text = keep_values(tmp_path / folder, {0: Returned(b"1", pickled=False)})
    assert text.startswith("what they returned could not be kept in ")
    assert any(reason in text for reason in ("No such file", "Not a directory"))
