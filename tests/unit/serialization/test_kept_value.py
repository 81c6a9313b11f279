"""What nobody can take is kept on disk, and can be read again by a line of Python."""

from __future__ import annotations

import pickle
import re
import threading
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from llutil.serialization import kept_value, npz_archive
from llutil.serialization.kept_value import keep_content, keep_value, kept_files, write_privately


class Holder:
    """Of a module that can be imported."""

    def __init__(self, held: Any) -> None:
        self.held = held


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("not on my watch")

    def __repr__(self) -> str:
        raise RuntimeError("nor like this")


def read_back(told: str) -> Any:
    """What the line of Python in the text gives."""
    found = re.search(r": (import .*\))", told)
    assert found is not None, told
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a line of Python closes no file
        exec(found[1].partition("; 1 of")[0], names)
    return names.get("value", names.get("parts"))


def test_a_value_is_read_back_by_the_line_that_is_told(tmp_path: Path) -> None:
    class Local:
        loss = 0.5

    value = {"raw": b"raw", "tensor": torch.ones(2), "local": Local, "held": Holder({1, 2})}
    told = keep_value(value, tmp_path / "kept", "rank_3.pickle")
    assert str(tmp_path / "kept" / "rank_3.pickle") in told
    found = read_back(told)
    assert found["raw"] == b"raw"
    assert found["tensor"].tolist() == [1, 1]
    assert found["local"].loss == 0.5
    assert found["held"].held == {1, 2}


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (threading.Lock(), "<unlocked _thread.lock object"),
        (threading.Lock().acquire, "<built-in method acquire"),
        ((one for one in ()), "<generator object"),
        (Refuses(), "<test_kept_value.Refuses object>"),
    ],
)
def test_a_part_that_cannot_be_pickled_is_text_and_the_rest_is_kept(
    tmp_path: Path, part: Any, text: str
) -> None:
    told = keep_value([1, Holder({"part": part}), 2], tmp_path / "kept", "rank_0.pickle")
    assert "1 of its parts cannot be pickled and are text there: <" in told
    first, holder, last = pickle.loads((tmp_path / "kept" / "rank_0.pickle").read_bytes())
    assert (first, last) == (1, 2)
    assert text.rsplit(".", maxsplit=1)[-1] in holder.held["part"]


def test_what_cannot_be_kept_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    told = keep_value(deep, tmp_path / "kept", "rank_0.pickle")
    assert told.startswith("it could not be kept in a file either: PicklingError: ")
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "pickled", "form"),
    [
        (pickle.dumps([1]), True, "pickle"),
        (b'{"a": [1]}', False, "json"),
        (npz_archive.encode({"a": np.ones(1)}, rank=0, limit=10**6), False, "npz"),
    ],
)
def test_what_came_from_a_rank_is_kept_in_its_own_form(
    tmp_path: Path, content: bytes, pickled: bool, form: str
) -> None:
    told = keep_content(content, tmp_path / "kept", 3, pickled=pickled)
    assert (tmp_path / "kept" / f"rank_3.{form}").read_bytes() == content
    assert read_back(told) is not None


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(kept_value, "_MEMORY", folder)
    return folder


def test_only_this_user_may_enter_the_folder(tmp_path: Path, memory: Path) -> None:
    path = write_privately(tmp_path / "kept", "file", lambda file: file.write(b"x"))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(path.parent)
    for folder in (open_to_all, tmp_path / "link"):
        path = write_privately(folder, "file", lambda file: file.write(b"x"))
        assert path == memory / folder.name / "file"


def test_memory_is_taken_where_the_disk_is_full(tmp_path: Path, memory: Path) -> None:
    def write(file: IO[bytes]) -> None:
        file.write(b"x")
        if memory not in Path(file.name).parents:
            raise OSError(28, "No space left on device")

    path = write_privately(tmp_path / "kept", "file", write)
    assert path == memory / "kept" / "file"
    assert path.read_bytes() == b"x"
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_is_kept_is_found_on_the_disk_and_in_memory(tmp_path: Path, memory: Path) -> None:
    folder = tmp_path / "kept"
    keep_content(b"[]", folder, 0, pickled=False)
    keep_content(b"pickle", memory / "kept", 1, pickled=True)
    (folder / "note.txt").touch()
    assert list(kept_files(folder)) == [folder / "rank_0.json", memory / "kept" / "rank_1.pickle"]


def test_what_others_may_have_written_is_not_taken_for_a_kept_value(
    tmp_path: Path, memory: Path
) -> None:
    (memory / "kept").mkdir(mode=0o755)
    (memory / "kept" / "rank_0.json").touch()
    assert list(kept_files(tmp_path / "kept")) == []


def test_where_nothing_has_room_the_first_error_is_told(tmp_path: Path, memory: Path) -> None:
    memory.rmdir()
    memory.write_text("no folder")
    (tmp_path / "kept").write_text("no folder either")
    told = keep_content(b"[]", tmp_path / "kept", 0, pickled=False)
    assert str(tmp_path / "kept") in told
