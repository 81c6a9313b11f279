"""A fault is noted once in a life of its job."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from llutil.chaos.memory import folder_of_notes, forget, note
from llutil.checkpoints.committed import look
from llutil.checkpoints.store import open_store


@pytest.fixture(params=["path", "uri", "host"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    places = {"path": str(tmp_path / "c"), "uri": f"memory://{tmp_path.name}/c/", "host": ""}
    return folder_of_notes(places[request.param], "job")


def test_a_fault_is_noted_once(folder: str) -> None:
    assert [note(folder, "kill"), note(folder, "kill"), note(folder, "oom")] == [True, False, True]


def test_what_is_forgotten_can_be_noted_again_and_leaves_nothing(
    folder: str, tmp_path: Path
) -> None:
    note(folder, "kill")
    forget(folder)
    assert not list(tmp_path.glob("*/*"))
    assert note(folder, "kill")
    forget(folder)
    forget(folder)  # nothing is there


def test_jobs_and_lives_have_notes_of_their_own(tmp_path: Path) -> None:
    store = str(tmp_path)
    folders = {
        folder_of_notes(place, job, life)
        for place in (store, "")
        for job in ("a",)
        for life in ("", "1@x", "2@x")
    }
    assert len(folders) == 6
    assert folder_of_notes("", "a/../b") != folder_of_notes("", "a", "/../b")
    assert "/.." not in folder_of_notes("", "a/../b")


def test_notes_are_no_checkpoints_that_somebody_wonders_about(tmp_path: Path) -> None:
    note(folder_of_notes(str(tmp_path), "job"), "kill")
    found = look(open_store(str(tmp_path)), "job")
    assert not found.ignored
    assert not found.parts


def test_a_place_that_takes_no_notes_says_so(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file")
    with pytest.raises(OSError, match="Not a directory"):
        note(folder_of_notes(str(tmp_path / "c"), "job"), "kill")
