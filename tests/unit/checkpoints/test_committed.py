"""Which checkpoints count, and what is ignored."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from llutil.checkpoints.committed import look, newest, success_name
from llutil.checkpoints.local_store import LocalStore
from llutil.checkpoints.marker import MARKER, Checkpoint, Marker, encode
from llutil.checkpoints.retention import old, parts

A, B, C = (digit * 12 for digit in "abc")


def write(
    root: Path,
    name: str,
    *,
    number: int = 1,
    job: str = "job",
    step: int = 1,
    cut: int | None = None,
) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "data").write_text("1234")
    marker = Marker(step=step, world_size=2, job=job, number=number, files={"data": 4})
    (folder / MARKER).write_bytes(encode(marker)[:cut])
    return folder


def test_the_newest_is_the_one_committed_last_whatever_its_step_is(tmp_path: Path) -> None:
    write(tmp_path, f"step-100-{A}", number=1, step=100)
    folder = write(tmp_path, f"step-10-{B}", number=2, step=10)
    store = LocalStore(str(tmp_path))
    assert newest(store, "job") == Checkpoint(str(folder), 10, 2)


def test_of_two_with_one_number_the_further_one_is_the_newer(tmp_path: Path) -> None:
    write(tmp_path, f"step-9-{A}", step=9)
    write(tmp_path, f"step-10-{B}", step=10)
    found = newest(LocalStore(str(tmp_path)), "job")
    assert found is not None
    assert found.step == 10


def test_without_a_folder_there_is_none(tmp_path: Path) -> None:
    assert newest(LocalStore(str(tmp_path / "none")), "job") is None


def test_what_does_not_count_is_ignored_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write(tmp_path, f"step-1-{A}")
    write(tmp_path, f"step-2-{B}", number=2, cut=-1)
    write(tmp_path, f"step-3-{C}", number=3, job="another")
    lost = write(tmp_path, f"step-4-{A}", number=4)
    (lost / "data").unlink()
    shorter = write(tmp_path, f"step-5-{B}", number=5)
    (shorter / "data").write_text("123")
    (tmp_path / f"step-6-{C}").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "photos").mkdir()
    with caplog.at_level(logging.INFO):
        assert newest(LocalStore(str(tmp_path)), "job") == Checkpoint(str(good), 1, 2)
    for told in (
        f"step-2-{B} is ignored among the checkpoints of job 'job': its marker of",
        f"step-3-{C} is ignored among the checkpoints of job 'job': it is a checkpoint of job 'an",
        f"step-4-{A} is ignored among the checkpoints of job 'job': 1 of its 1 files are gone",
        f"step-5-{B} is ignored among the checkpoints of job 'job': 1 of its 1 files are gone",
        f"step-6-{C} does not count: it was never committed",
        "notes.txt is ignored among the checkpoints of job 'job': it is no checkpoint",
        "photos is ignored among the checkpoints of job 'job': it is no checkpoint",
    ):
        assert told in caplog.text


class Refusing(LocalStore):
    """A file system that does not show what is in one folder."""

    refused, number, shows_marker = "", errno.EIO, False

    def _may_refuse(self, name: str) -> None:
        if self.refused and name.startswith(self.refused):
            raise OSError(self.number, os.strerror(self.number), name)

    def get(self, name: str) -> bytes:
        if not self.shows_marker:
            self._may_refuse(name)
        return super().get(name)

    def files(self, folder: str) -> dict[str, int]:
        self._may_refuse(folder)
        return super().files(folder)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("shows_marker", [False, True])
def test_what_the_store_does_not_show_is_not_ignored_since_it_may_count(
    tmp_path: Path, number: int, shows_marker: bool
) -> None:
    write(tmp_path, f"step-1-{A}")
    newer = write(tmp_path, f"step-2-{B}", number=2, step=2)
    store = Refusing(str(tmp_path))
    store.refused, store.number, store.shows_marker = f"step-2-{B}", number, shows_marker
    for asked in (look, newest):
        with pytest.raises(OSError, match=os.strerror(number)):
            asked(store, "job")
    store.refused = ""
    assert newest(store, "job") == Checkpoint(str(newer), 2, 2)


def test_a_folder_of_somebody_else_that_lets_nobody_in_stops_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write(tmp_path, f"step-1-{A}")
    (tmp_path / "lost+found").mkdir()
    store = Refusing(str(tmp_path))
    store.refused, store.number = "lost+found", errno.EACCES
    assert newest(store, "job") == Checkpoint(str(good), 1, 2)
    assert "lost+found is ignored among the checkpoints of job 'job': [Errno 13]" in caplog.text


def test_a_marker_that_a_list_does_not_show_yet_makes_its_folder_no_part_to_remove(
    tmp_path: Path,
) -> None:
    write(tmp_path, f"step-1-{A}")

    class Late(LocalStore):
        def files(self, folder: str) -> dict[str, int]:
            return {}

    found = look(Late(str(tmp_path)), "job")
    assert found.parts == []
    assert found.ignored == {f"step-1-{A}": "its marker was removed just now"}


def test_only_what_is_surely_ours_is_ever_removed(tmp_path: Path) -> None:
    for number, name in enumerate((A, B, C)):
        write(tmp_path, f"step-{number}-{name}", number=number)
    write(tmp_path, f"step-8-{A}", number=8, job="another")
    write(tmp_path, f"step-9-{A}", number=9, cut=5)
    for name in (f"step-10-{A}", f"step-10-{B}", "photos"):
        (tmp_path / name).mkdir()
    found = look(LocalStore(str(tmp_path)), "job")
    assert old(found, 2) == [f"step-0-{A}"]
    assert parts(found, B) == [f"step-10-{A}"]


def test_of_many_successes_only_the_newest_are_read(tmp_path: Path) -> None:
    read: list[str] = []

    class Counting(LocalStore):
        def get(self, name: str) -> bytes:
            read.append(name)
            return super().get(name)

    for number in range(1, 21):
        (tmp_path / success_name(number)).write_text("today" if number > 18 else "before")
    store = Counting(str(tmp_path))
    assert look(store, "job", "today").succeeded == 18
    assert read == [".succeeded-20", ".succeeded-19", ".succeeded-18"]
    assert look(store, "job").succeeded == 20
