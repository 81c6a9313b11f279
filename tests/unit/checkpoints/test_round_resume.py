"""What the ranks of a round resume from: the same for all, whatever lands meanwhile."""

from __future__ import annotations

import errno
import json
import logging
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from llutil.checkpoints.committed import folder_name, look
from llutil.checkpoints.job_environment import note_success
from llutil.checkpoints.local_store import LocalStore
from llutil.checkpoints.marker import Checkpoint
from llutil.checkpoints.place import FOLDER, LIFE, RESUME, RESUMES, ROUND, TIMEOUT
from llutil.checkpoints.saves import Saves
from llutil.checkpoints.store import Store, open_store
from llutil.errors import CheckpointAbandonedError, CheckpointError, CheckpointStoreError

SOON = 30.0


@pytest.fixture(params=["local", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The folder of job ``job``, in each kind of store."""
    if request.param != "memory":
        yield f"{tmp_path}/job" if request.param == "local" else f"file://{tmp_path}/job"
        return
    root = f"memory://{uuid.uuid4().hex}"
    yield f"{root}/job"
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


def rank_of(folder: str, rank: int, size: int, name: str = "r1", **more: str) -> Saves:
    told = {FOLDER: folder, ROUND: name, "RANK": str(rank), "WORLD_SIZE": str(size)}
    return Saves(told | more)


def save(folder: str, step: int, *ranks: Saves) -> None:
    """A checkpoint of these ranks, or of a process alone."""

    def one(saves: Saves) -> None:
        with saves.save(step) as path, fsspec.open(f"{path}/{saves.place.rank}", "w") as file:
            file.write("data")

    together = ranks or (Saves({FOLDER: folder}),)
    with ThreadPoolExecutor(len(together)) as pool:
        for future in [pool.submit(one, saves) for saves in together]:
            future.result(SOON)


def step_of(found: Checkpoint | None) -> int | None:
    return None if found is None else found.step


def notes(folder: str) -> list[str]:
    return sorted(open_store(folder).names(".attempts"))


def note_of(folder: str) -> tuple[Store, str]:
    """The store, and the only note of what a round resumes from."""
    (name,) = [name for name in notes(folder) if name.startswith("resume-")]
    return open_store(folder), f".attempts/{name}/found"


@pytest.mark.parametrize("before", [None, 3])
def test_all_ranks_resume_from_what_rank_0_found_whatever_is_committed_meanwhile(
    folder: str, before: int | None
) -> None:
    if before:
        save(folder, before)
    ranks = [rank_of(folder, rank, 3) for rank in range(3)]
    assert step_of(ranks[0].resume()) == before
    save(folder, 9)
    found = [rank.resume() for rank in ranks]
    assert len(set(found)) == 1
    assert step_of(found[0]) == before
    assert step_of(rank_of(folder, 0, 3).resume()) == before  # another process of rank 0
    save(folder, 10, *ranks)
    assert [step_of(rank.resume()) for rank in ranks] == [10] * 3


def test_ranks_wait_for_rank_0(folder: str) -> None:
    save(folder, 3)
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(rank_of(folder, 1, 2).resume)
        found = rank_of(folder, 0, 2).resume()
        assert early.result(SOON) == found
    assert step_of(found) == 3


def test_who_waits_for_rank_0_in_vain_is_told_so_within_the_deadline(folder: str) -> None:
    rank = rank_of(folder, 1, 2, **{TIMEOUT: "0.2"})
    with pytest.raises(
        CheckpointError, match=r"rank 0 has not called worker\.resume within 0\.2 s"
    ):
        rank.resume()
    rank_of(folder, 0, 2).resume()
    assert rank.resume() is None


def test_each_round_decides_by_itself_and_removes_what_earlier_ones_decided(folder: str) -> None:
    for number in range(1, 4):
        ranks = [rank_of(folder, rank, 2, f"r{number}") for rank in range(2)]
        assert [step_of(rank.resume()) for rank in ranks] == [number - 1 or None] * 2
        save(folder, number, *ranks)
        assert len([name for name in notes(folder) if name.startswith("resume-")]) == 1
        assert len(notes(folder)) == 2


@pytest.mark.parametrize("resume", RESUMES)
@pytest.mark.parametrize(("size", "later_size"), [(2, 2), (2, 1), (1, 2), (1, 1)])
def test_a_round_that_was_left_behind_commits_nothing_once_a_later_one_has_decided(
    folder: str, size: int, later_size: int, resume: str
) -> None:
    save(folder, 1)
    zombies = [rank_of(folder, rank, size, "r1") for rank in range(size)]
    contexts = [zombie.save(2) for zombie in zombies]
    for context in contexts:
        context.__enter__()
    later = [rank_of(folder, rank, later_size, "r2", **{RESUME: resume}) for rank in range(2)]
    later = later[:later_size]
    wanted = None if resume == "never" else 1
    assert [step_of(rank.resume()) for rank in later] == [wanted] * later_size
    with ThreadPoolExecutor(2) as pool:
        for left in [pool.submit(context.__exit__, None, None, None) for context in contexts]:
            assert isinstance(left.exception(SOON), CheckpointError)
    assert step_of(Saves({FOLDER: folder}).resume()) == 1
    save(folder, 2, *later)


@pytest.mark.parametrize("resume", RESUMES)
@pytest.mark.parametrize(("size", "later_size"), [(2, 2), (2, 1), (1, 2), (1, 1)])
def test_a_round_that_was_left_behind_begins_no_save_either_and_removes_nothing(
    folder: str, size: int, later_size: int, resume: str
) -> None:
    save(folder, 1)
    zombies = [rank_of(folder, rank, size, "r1") for rank in range(size)]
    assert [step_of(rank.resume()) for rank in zombies] == [1] * size
    save(folder, 2, *zombies)
    later = [rank_of(folder, rank, later_size, "r2", **{RESUME: resume}) for rank in range(2)]
    later = later[:later_size]
    wanted = None if resume == "never" else 2
    assert [step_of(rank.resume()) for rank in later] == [wanted] * later_size
    contexts = [rank.save(3) for rank in later]
    for context in contexts:
        with fsspec.open(f"{context.__enter__()}/data", "w") as file:
            file.write("later")
    with pytest.raises(CheckpointAbandonedError, match="a later round of the job is at work"):
        zombies[0].save(3).__enter__()
    for zombie in zombies[1:]:
        with pytest.raises(CheckpointError):
            zombie.save(3).__enter__()
    with ThreadPoolExecutor(2) as pool:
        for left in [pool.submit(context.__exit__, None, None, None) for context in contexts]:
            left.result(SOON)
    assert [step_of(rank.resume()) for rank in later] == [3] * later_size


def test_a_process_that_a_lone_rank_begins_shuts_out_nobody_of_its_round(folder: str) -> None:
    """As when a rank runs one program after the other, or looks while it saves."""
    save(folder, 1)
    first = rank_of(folder, 0, 1)
    assert step_of(first.resume()) == 1
    with first.save(2) as path:
        with fsspec.open(f"{path}/data", "w") as file:
            file.write("data")
        assert step_of(rank_of(folder, 0, 1).resume()) == 1
    second = rank_of(folder, 0, 1)
    assert step_of(second.resume()) == 2
    save(folder, 3, second)
    save(folder, 4, first)
    assert step_of(rank_of(folder, 0, 1).resume()) == 4


def test_a_lone_rank_resumes_also_where_nothing_more_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(f"{tmp_path}/job", 1)
    monkeypatch.setattr(LocalStore, "put", full)
    assert step_of(rank_of(f"{tmp_path}/job", 0, 1).resume()) == 1
    assert "a later round may not shut out this one: [Errno 28]" in caplog.text


def test_a_store_that_shows_no_marker_now_begins_no_job_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: LocalStore, name: str) -> bytes:
        if name.endswith("COMMITTED"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        return get(store, name)

    folder, get = f"{tmp_path}/job", LocalStore.get
    save(folder, 1)
    for size in (1, 2):
        rank = rank_of(folder, 0, size, f"r{size}")
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "get", refuse)
            with pytest.raises(CheckpointStoreError, match=r"what to resume from: .*Errno 5"):
                rank.resume()
        assert step_of(rank.resume()) == 1


@pytest.mark.parametrize("text", [b"", b"{", b"3", b"[]", b'{"version": 2}', b'{"version": 1}'])
def test_a_note_that_is_cut_short_is_named_and_decides_nothing(
    folder: str, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder, 3)
    rank_of(folder, 0, 2).resume()
    store, note = note_of(folder)
    whole = store.get(note)
    store.put(note, text)
    rank = rank_of(folder, 1, 2, **{TIMEOUT: "0.1"})
    told = (
        rf"rank 0 has not called .*; the note of {len(text)} bytes at .* is no decision of rank 0"
    )
    with pytest.raises(CheckpointError, match=told):
        rank.resume()
    assert "is no decision of rank 0 is ignored" in caplog.text
    assert step_of(rank_of(folder, 0, 2).resume()) == 3
    assert store.get(note) == whole
    assert step_of(rank.resume()) == 3


def test_a_note_names_a_folder_and_no_place_of_one_host(folder: str) -> None:
    save(folder, 3)
    found = rank_of(folder, 0, 2).resume()
    assert found is not None
    store, note = note_of(folder)
    told = json.loads(store.get(note))["found"]
    assert told == {"folder": found.path.rpartition("/")[2], "step": 3, "world_size": 1}


def test_a_store_that_cannot_be_used_is_an_error_of_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("a file")
    for rank in (rank_of(f"{tmp_path}/job", 0, 1), rank_of(f"{tmp_path}/job", 0, 2)):
        with pytest.raises(CheckpointStoreError, match="nobody knows what to resume from"):
            rank.resume()


def test_a_life_after_a_success_resumes_though_somebody_has_removed_all_checkpoints_before(
    folder: str,
) -> None:
    for step in (50, 100):
        save(folder, step)
    assert note_success(folder)
    store = open_store(folder)
    for name in store.names(""):
        if name.startswith("step-"):
            store.remove(name)
    save(folder, 10)
    assert step_of(rank_of(folder, 0, 1).resume()) == 10


def test_a_job_that_has_succeeded_begins_afresh_unless_asked_otherwise(
    folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (50, 100):
        save(folder, step)
    assert note_success(folder)
    assert notes(folder) == []
    with caplog.at_level(logging.INFO):
        assert rank_of(folder, 0, 1).resume() is None
    assert "is not resumed from: job 'job' has succeeded since, and begins afresh" in caplog.text
    assert step_of(rank_of(folder, 0, 1, **{RESUME: "always"}).resume()) == 100
    save(folder, 10)  # a smaller step, and newer all the same
    assert step_of(rank_of(folder, 0, 2, "r2").resume()) == 10
    assert step_of(rank_of(folder, 1, 2, "r2").resume()) == 10
    assert note_success(folder)
    assert note_success(folder)
    assert rank_of(folder, 0, 1).resume() is None
    assert step_of(rank_of(folder, 0, 1, **{RESUME: "always"}).resume()) == 10
    assert "ignored" not in caplog.text


def test_a_next_try_in_the_same_life_goes_on_from_the_end(folder: str) -> None:
    save(folder, 50)
    assert note_success(folder, "0@monday")
    assert step_of(rank_of(folder, 0, 1, **{LIFE: "0@monday"}).resume()) == 50
    assert rank_of(folder, 0, 1, **{LIFE: "1@tuesday"}).resume() is None
    assert rank_of(folder, 0, 1).resume() is None
    save(folder, 7)
    assert note_success(folder, "1@tuesday")
    assert step_of(rank_of(folder, 0, 1, **{LIFE: "1@tuesday"}).resume()) == 7
    assert rank_of(folder, 0, 1, **{LIFE: "0@monday"}).resume() is None


def test_a_job_without_checkpoints_may_succeed(folder: str) -> None:
    assert note_success(folder)
    save(folder, 1)
    assert step_of(rank_of(folder, 0, 1).resume()) == 1


def test_a_job_that_has_succeeded_leaves_no_half_checkpoint(folder: str) -> None:
    """As when its last save met a full disk, and it came to its end without another one."""
    save(folder, 50)
    store = open_store(folder)
    part = folder_name(60, "0123456789ab")
    store.make(part)
    store.put(f"{part}/0", b"data")
    assert look(store, "job").parts == [part]
    assert note_success(folder)
    found = look(store, "job")
    assert not found.parts
    assert [marker.step for marker in found.markers.values()] == [50]


def test_a_success_that_cannot_be_noted_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "job").write_text("a file")
    assert not note_success(f"{tmp_path}/job")
    assert "its next life may resume from its end" in caplog.text


def test_a_note_of_success_that_names_no_number_is_ignored_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = f"{tmp_path}/job"
    save(folder, 1)
    for name in (".succeeded-", ".succeeded-x", ".succeeded-0"):
        (tmp_path / "job" / name).touch()
    assert step_of(rank_of(folder, 0, 1).resume()) == 1
    for name in (".succeeded-", ".succeeded-x"):
        assert f"{name} is ignored among the checkpoints of job" in caplog.text


def test_a_round_that_begins_afresh_resumes_from_what_it_has_committed_itself(folder: str) -> None:
    save(folder, 3)
    rank = rank_of(folder, 0, 1, **{RESUME: "never"})
    assert rank.resume() is None
    save(folder, 2, rank)
    assert step_of(rank.resume()) == 2
    assert rank_of(folder, 0, 1, **{RESUME: "never"}).resume() is None
