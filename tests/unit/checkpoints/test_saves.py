"""What ranks save together; each rank of these rounds is a thread."""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from llutil.checkpoints import saves
from llutil.checkpoints.attempt import Attempt
from llutil.checkpoints.committed import look
from llutil.checkpoints.local_store import LocalStore
from llutil.checkpoints.marker import Checkpoint
from llutil.checkpoints.place import FOLDER, KEEP, RESUME, ROUND, TIMEOUT
from llutil.checkpoints.saves import Saves
from llutil.checkpoints.store import open_store
from llutil.errors import (
    CheckpointAbandonedError,
    CheckpointError,
    CheckpointPeerError,
    CheckpointStoreError,
)
from llutil.launcher.config import LaunchConfig

SOON = 30.0


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The folder of job ``job``: in a file system, and in a store without folders."""
    if request.param == "local":
        yield str(tmp_path / "job")
        return
    root = f"memory://{uuid.uuid4().hex}"
    yield f"{root}/job"
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


def rank_of(folder: str, rank: int, size: int, name: str = "r1", **more: str) -> Saves:
    return Saves(
        {FOLDER: folder, ROUND: name, "RANK": str(rank), "WORLD_SIZE": str(size)}
        | {key.upper(): value for key, value in more.items()}
    )


def together(*works: Callable[[], object]) -> list[object]:
    """What each work returned or raised; they run at the same time."""
    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(work) for work in works]
        return [future.exception(SOON) or future.result() for future in futures]


def save(saves: Saves, step: int, text: str = "data") -> Callable[[], str]:
    def work() -> str:
        with saves.save(step) as path, fsspec.open(f"{path}/{saves.place.rank}", "w") as file:
            file.write(text)
        return path

    return work


def fail(saves: Saves, step: int, error: BaseException) -> Callable[[], None]:
    def work() -> None:
        with saves.save(step):
            raise error

    return work


def newest_in(folder: str) -> Checkpoint | None:
    """What counts; who looks belongs to no round."""
    return Saves({FOLDER: folder}).resume()


def names(folder: str) -> list[str]:
    files = fsspec.filesystem("memory" if folder.startswith("memory") else "file")
    found = [name.rpartition("/")[2] for name in files.ls(folder, detail=False)]
    return sorted(name for name in found if name.startswith("step"))


def test_a_checkpoint_counts_when_all_ranks_have_left_it(folder: str) -> None:
    ranks = [rank_of(folder, rank, 3) for rank in range(3)]
    paths = together(*(save(rank, 5) for rank in ranks))
    assert len(set(paths)) == 1
    wanted = Checkpoint(str(paths[0]), 5, 3)
    assert [rank.resume() for rank in ranks] == [wanted] * 3
    assert newest_in(folder) == wanted


def test_whoever_goes_on_from_an_earlier_round_says_so_once(folder: str) -> None:
    first, told = rank_of(folder, 0, 1), list[int]()
    first.resumed = told.append
    assert first.resume() is None
    save(first, 5)()
    assert first.resume() is not None
    assert told == []  # it is its own
    second = rank_of(folder, 0, 1, "r2")
    second.resumed = told.append
    second.resume()
    second.resume()
    assert told == [5]


def test_nothing_counts_while_a_rank_is_inside(folder: str) -> None:
    ranks = [rank_of(folder, rank, 2) for rank in range(2)]
    inside, go = threading.Event(), threading.Event()

    def slow() -> None:
        with ranks[1].save(1):
            inside.set()
            assert go.wait(SOON)

    def look_and_let_go() -> Checkpoint | None:
        assert inside.wait(SOON)
        found = newest_in(folder)
        go.set()
        return found

    assert together(save(ranks[0], 1), slow, look_and_let_go)[2] is None
    assert newest_in(folder) is not None


def test_only_the_newest_are_kept_and_what_never_counted_is_removed(folder: str) -> None:
    ranks = [rank_of(folder, rank, 2, llutil_checkpoint_keep="2") for rank in range(2)]
    for step in range(1, 5):
        together(*(save(rank, step) for rank in ranks))
        together(*(fail(rank, step, RuntimeError("no")) for rank in ranks))
    assert [name.rpartition("-")[0] for name in names(folder)] == ["step-3", "step-4", "step-4"]
    together(*(save(rank, 5) for rank in ranks))
    ranks[0].end()  # waits for the removal, which goes on behind
    assert [name.rpartition("-")[0] for name in names(folder)] == ["step-4", "step-5"]


def test_training_does_not_wait_until_old_checkpoints_are_removed(tmp_path: Path) -> None:
    go = threading.Event()

    class SlowStore(LocalStore):
        def remove(self, folder: str) -> None:
            assert go.wait(SOON)
            super().remove(folder)

    rank = rank_of(f"{tmp_path}/job", 0, 1, **{KEEP: "1"})
    save(rank, 1)()
    rank._store = SlowStore(f"{tmp_path}/job")
    save(rank, 2)()
    assert len(names(f"{tmp_path}/job")) == 2
    go.set()
    with rank.save(3):
        assert [name.rpartition("-")[0] for name in names(f"{tmp_path}/job")] == [
            "step-2",
            "step-3",
        ]


def test_a_rank_that_ends_waits_for_a_removal_less_than_its_agent_waits_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LaunchConfig(1, 1, 1).exit_timeout >= 2 * saves._REMOVED_AT_THE_END
    monkeypatch.setattr(saves, "_REMOVED_AT_THE_END", 0.2)
    go = threading.Event()

    class StuckStore(LocalStore):
        def remove(self, folder: str) -> None:
            go.wait()

    rank = rank_of(f"{tmp_path}/job", 0, 1, **{KEEP: "1"})
    save(rank, 1)()
    rank._store = StuckStore(f"{tmp_path}/job")
    save(rank, 2)()
    rank.end()
    assert "still being removed after 0.2 s" in caplog.text
    go.set()


def test_a_store_that_never_removes_fails_the_next_save_and_holds_no_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()

    class StuckStore(LocalStore):
        def remove(self, folder: str) -> None:
            go.wait()

    rank = rank_of(f"{tmp_path}/job", 0, 1, **{KEEP: "1", TIMEOUT: "0.2"})
    save(rank, 1)()
    assert rank._removal.is_over(SOON)
    rank._store = StuckStore(f"{tmp_path}/job")
    save(rank, 2)()
    told = "step 3 cannot be begun: old checkpoints are still being removed, 0.2 s later"
    with pytest.raises(CheckpointError, match=told):
        save(rank, 3)()
    rank.end()
    assert "still being removed after 0.2 s" in caplog.text
    assert all(one.daemon for one in threading.enumerate() if one.name == "retention")
    go.set()
    assert rank._removal.is_over(SOON)
    save(rank, 4)()
    found = rank.resume()
    assert found is not None
    assert found.step == 4


def test_the_next_save_waits_also_for_the_removal_that_the_save_behind_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    class StuckStore(LocalStore):
        def remove(self, folder: str) -> None:
            assert not folder.startswith("step-1-") or go.wait(SOON)
            super().remove(folder)

    rank = rank_of(f"{tmp_path}/job", 0, 1, **{KEEP: "1", TIMEOUT: "0.5"})
    save(rank, 1)()
    assert rank._removal.is_over(SOON)
    rank._store = StuckStore(f"{tmp_path}/job")
    upload: Future[None] = Future()
    with rank.save(2) as path:
        path.after(upload)
    behind = rank._behind
    assert behind is not None
    join = behind.join

    def end_and_join(_seconds: float) -> bool:
        upload.set_result(None)
        return join(SOON)

    monkeypatch.setattr(behind, "join", end_and_join)
    with pytest.raises(CheckpointError, match="cannot be begun: old checkpoints are still being"):
        save(rank, 3)()
    go.set()
    assert rank._removal.is_over(SOON)
    save(rank, 4)()


def test_who_fails_gets_its_own_error_and_the_others_are_told_whose_it_was(folder: str) -> None:
    ranks = [rank_of(folder, rank, 2) for rank in range(2)]
    together(*(save(rank, 1) for rank in ranks))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for failing, other in ((1, 0), (0, 1)):
        told = together(fail(ranks[failing], 2, full), save(ranks[other], 2))
        assert told[0] is full
        assert isinstance(told[1], CheckpointPeerError)
        assert f"rank {failing} failed in it (OSError: [Errno 28] No space left" in str(told[1])
        newest = newest_in(folder)
        assert newest is not None
        assert newest.step == 1
    together(*(save(rank, 3) for rank in ranks))
    newest = newest_in(folder)
    assert newest is not None
    assert newest.step == 3


def test_a_reason_that_is_in_a_notes_name_is_told_and_a_note_that_is_half_put_is_none(
    tmp_path: Path,
) -> None:
    rank = rank_of(f"{tmp_path}/job", 0, 2)
    notes = tmp_path / "job" / ".attempts" / rank.place.attempt(1)
    notes.mkdir(parents=True)
    for name in (".1-failed.0123", "1-failed-OSError%3A%20full%2Fdisk"):
        (notes / name).touch()
    (told,) = together(save(rank, 1))
    assert str(told).endswith("rank 1 failed in it (OSError: full/disk)")


@pytest.mark.parametrize(
    "text",
    ["\u4e2d" * 99, "no folder /data/\udce9", "x-entered-5", "the rank has-ended", "-" * 99],
    ids=ascii,
)
def test_whatever_a_rank_fails_with_on_a_full_disk_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    put = LocalStore.put

    def full(self: LocalStore, name: str, content: bytes, *, durable: bool = False) -> None:
        if content:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, name, content, durable=durable)

    monkeypatch.setattr(LocalStore, "put", full)
    ranks = [rank_of(f"{tmp_path}/job", rank, 2) for rank in range(2)]
    error = ValueError(text)
    told = together(save(ranks[0], 1), fail(ranks[1], 1, error))
    assert told[1] is error
    assert isinstance(told[0], CheckpointPeerError)
    shown = text.encode(errors="replace").decode()
    assert f"rank 1 failed in it (ValueError: {shown[:8]}" in str(told[0])
    assert "have ended" not in str(together(save(ranks[0], 2), fail(ranks[1], 2, error))[0])


def test_ranks_at_different_steps_are_told_so_and_nothing_counts(folder: str) -> None:
    ranks = [rank_of(folder, rank, 3) for rank in range(3)]
    told = together(save(ranks[0], 10), save(ranks[1], 11), save(ranks[2], 10))
    for error in told:
        assert isinstance(error, CheckpointError)
    assert "rank 1 at step 11" in str(told[0])
    assert newest_in(folder) is None
    together(*(save(rank, 12) for rank in ranks))
    assert newest_in(folder) is not None


def test_who_never_comes_is_named_within_the_deadline(folder: str) -> None:
    alone = rank_of(folder, 0, 2, llutil_checkpoint_timeout="0.2")
    (told,) = together(save(alone, 10))
    assert isinstance(told, CheckpointError)
    assert f"within 0.2 s in {folder}; never entered worker.checkpoint: ranks [1]" in str(told)
    late = rank_of(folder, 1, 2)
    (told,) = together(save(late, 10))
    assert "rank 0 failed in it (CheckpointError" in str(told)


def test_a_rank_that_has_ended_is_named_at_once_however_often_the_others_try(folder: str) -> None:
    ranks = [rank_of(folder, rank, 3) for rank in range(3)]
    together(*(save(rank, 10) for rank in ranks))
    ranks[1].end()
    for step in (20, 30):
        told = together(save(ranks[0], step), save(ranks[2], step))
        for error in told:
            assert isinstance(error, CheckpointError)
            assert f"step {step} does not count: the processes of ranks [1] have ended" in str(
                error
            )
    newest = newest_in(folder)
    assert newest is not None
    assert newest.step == 10


def test_a_rank_that_waits_is_told_when_another_one_ends(folder: str) -> None:
    ranks = [rank_of(folder, rank, 2) for rank in range(2)]
    together(*(save(rank, 10) for rank in ranks))

    def end_while_the_other_waits() -> None:
        store = open_store(folder)
        deadline = time.monotonic() + SOON
        notes = f".attempts/{ranks[0].place.attempt(2)}"
        while "0-left" not in store.names(notes):
            assert time.monotonic() < deadline
        ranks[1].end()

    told = together(save(ranks[0], 20), end_while_the_other_waits)
    assert "the processes of ranks [1] have ended" in str(told[0])


def test_a_process_that_saved_nothing_is_no_rank_that_ends(folder: str) -> None:
    rank_of(folder, 1, 2).end()
    together(*(save(rank_of(folder, rank, 2), 10) for rank in range(2)))
    assert newest_in(folder) is not None


def test_a_round_does_not_take_part_in_what_another_round_began(folder: str) -> None:
    first = rank_of(folder, 0, 2, "r1", llutil_checkpoint_timeout="0.2")
    together(save(first, 10))
    ranks = [rank_of(folder, rank, 2, "r2") for rank in range(2)]
    paths = together(*(save(rank, 10) for rank in ranks))
    assert len(set(paths)) == 1
    assert look(LocalStore(folder), "job").parts == []


@pytest.mark.parametrize("writes_again", [False, True])
def test_a_rank_whose_folder_a_later_round_has_removed_names_no_cause_of_its_own(
    folder: str, writes_again: bool
) -> None:
    """What it writes fails then: that says nothing of the store, nor of its own code."""
    rank = rank_of(folder, 1, 2)
    missing = OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def write() -> None:
        with rank.save(10):
            save(rank_of(folder, 0, 1, "r2"), 11)()
            if writes_again:
                raise missing

    with pytest.raises(CheckpointAbandonedError, match="was removed from") as raised:
        write()
    if writes_again:
        assert raised.value.__cause__ is missing
    behind: Future[None] = Future()
    with rank.save(20) as path:
        path.after(behind)
        save(rank_of(folder, 0, 1, "r3"), 21)()
    behind.set_exception(missing) if writes_again else behind.set_result(None)
    with pytest.raises(CheckpointAbandonedError, match="saved behind, does not count"):
        rank.save(30).__enter__()
    newest = newest_in(folder)
    assert newest is not None
    assert newest.step == 21


def test_a_rank_that_is_stopped_while_it_saves_is_stopped(folder: str) -> None:
    rank = rank_of(folder, 1, 2)

    def write() -> None:
        with rank.save(10):
            save(rank_of(folder, 0, 1, "r2"), 11)()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()


class Ended(SystemExit):
    """What a signal's handler raises that ends the process."""


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    "place",
    ["enters", "waits for the one behind", "waits for an async_save", "leaves", "has left"],
)
def test_whoever_ends_while_it_saves_holds_no_other_rank(
    tmp_path: Path, failing: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But who has left holds nobody anyway; only rank 0 has to commit then."""
    ranks = [rank_of(f"{tmp_path}/job", rank, 2, **{TIMEOUT: "20"}) for rank in range(2)]
    ended, other = ranks[failing], ranks[1 - failing]

    def end(*_: object, **__: object) -> None:
        raise Ended

    class Ending(LocalStore):
        def make(self, name: str) -> None:
            super().make(name)
            if place == "enters" and name.startswith("step-"):
                raise Ended

        def sync(self, folder: str) -> None:
            if place == "leaves":
                raise Ended
            super().sync(folder)

        def names(self, folder: str) -> list[str]:
            found = super().names(folder)
            if place == "has left" and f"{failing}-left" in found:
                raise Ended
            return found

    ended._store = Ending(f"{tmp_path}/job")
    if place == "waits for the one behind":
        done: Future[None] = Future()
        done.set_result(None)
        for rank in ranks:
            with rank.save(1) as path:
                path.after(done)
        assert ended._behind is not None
        monkeypatch.setattr(ended._behind, "join", end)
    if place == "waits for an async_save":
        wait = saves.untold_save_problem

        def wait_or_end(
            before: Collection[threading.Thread], attempt: Attempt, timeout: float
        ) -> str:
            if attempt._store is ended._store:
                raise Ended
            return wait(before, attempt, timeout)

        monkeypatch.setattr(saves, "untold_save_problem", wait_or_end)
    told = together(save(ended, 2), save(other, 2))
    assert isinstance(told[0], Ended)
    if place == "has left" and failing:
        assert isinstance(told[1], str)
    else:
        assert isinstance(told[1], CheckpointPeerError)
        assert f"rank {failing} failed in it (Ended: " in str(told[1])


def test_a_rank_0_of_an_earlier_round_commits_nothing_that_was_removed(folder: str) -> None:
    zombie = rank_of(folder, 0, 1)
    inside, go = threading.Event(), threading.Event()

    def slow() -> None:
        with zombie.save(10) as path:
            with fsspec.open(f"{path}/half", "w") as file:
                file.write("1")
            inside.set()
            assert go.wait(SOON)
            if folder.startswith("memory"):  # a store without folders takes what is written late
                with fsspec.open(f"{path}/other half", "w") as file:
                    file.write("2")

    def later_round() -> None:
        assert inside.wait(SOON)
        save(rank_of(folder, 0, 1), 11)()
        go.set()

    told = together(slow, later_round)
    assert isinstance(told[0], CheckpointAbandonedError)
    newest = newest_in(folder)
    assert newest is not None
    assert newest.step == 11


def test_a_round_that_never_resumes_does_so_from_what_it_has_committed_itself(folder: str) -> None:
    save(rank_of(folder, 0, 1), 3)()
    afresh = rank_of(folder, 0, 1, **{RESUME: "never"})
    assert afresh.resume() is None
    path = save(afresh, 2)()
    assert afresh.resume() == newest_in(folder) == Checkpoint(path, 2, 1)


def test_a_save_behind_counts_only_after_its_future(folder: str) -> None:
    ranks = [rank_of(folder, rank, 2) for rank in range(2)]
    uploads: list[Future[None]] = [Future(), Future()]
    for rank, upload in zip(ranks, uploads, strict=True):
        with rank.save(1) as path:
            path.after(upload)
    uploads[0].set_result(None)
    assert newest_in(folder) is None
    uploads[1].set_result(None)
    together(*(save(rank, 2) for rank in ranks))
    found = newest_in(folder)
    assert found is not None
    assert found.step == 2
    assert [name.rpartition("-")[0] for name in names(folder)] == ["step-1", "step-2"]


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the limit of processes and threads is reached."""
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name in ("checkpoint", "retention"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)


@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_is_to_be_had_a_save_behind_and_a_removal_are_waited_for(
    folder: str,
) -> None:
    ranks = [rank_of(folder, rank, 2, **{KEEP: "1"}) for rank in range(2)]
    uploads = [Future[None]() for _ in ranks]

    def behind(saves: Saves, upload: Future[None]) -> Callable[[], None]:
        def work() -> None:
            with saves.save(1) as path:
                path.after(upload)

        return work

    def end_both() -> None:
        for upload in uploads:
            upload.set_result(None)

    works = map(behind, ranks, uploads)
    assert together(*works, end_both) == [None] * 3
    assert [rank.resume() for rank in ranks] == [newest_in(folder)] * 2
    together(*(save(rank, 2) for rank in ranks))
    newest = newest_in(folder)
    assert newest
    assert newest.step == 2
    assert names(folder) == [newest.path.rpartition("/")[2]]


@pytest.mark.usefixtures("no_threads")
def test_what_fails_where_no_thread_is_to_be_had_is_told_to_all_at_once(folder: str) -> None:
    ranks = [rank_of(folder, rank, 2) for rank in range(2)]
    error = ValueError("no upload")
    upload = Future[None]()
    upload.set_exception(error)

    def behind() -> None:
        with ranks[0].save(1) as path:
            path.after(upload)

    told = together(behind, save(ranks[1], 1))
    assert told[0] is error
    assert isinstance(told[1], CheckpointPeerError)
    together(*(save(rank, 2) for rank in ranks))
    newest = newest_in(folder)
    assert newest
    assert newest.step == 2


def test_a_save_behind_that_never_ends_holds_no_rank_for_ever_and_others_are_told(
    folder: str,
) -> None:
    slow, quick = (rank_of(folder, rank, 2, **{TIMEOUT: "0.5"}) for rank in range(2))
    upload: Future[None] = Future()
    with slow.save(1) as path:
        path.after(upload)
    done: Future[None] = Future()
    done.set_result(None)
    with quick.save(1) as path:
        path.after(done)
    told = together(save(slow, 2), save(quick, 2))
    assert isinstance(told[0], CheckpointError)
    assert "step 1 still goes on behind, 0.5 s later" in str(told[0])
    assert isinstance(told[1], CheckpointError)
    upload.set_result(None)
    for rank in (slow, quick):
        rank.place = replace(rank.place, timeout=SOON)
    together(save(slow, 3), save(quick, 3))  # the first save has failed meanwhile
    together(save(slow, 4), save(quick, 4))
    found = newest_in(folder)
    assert found is not None
    assert found.step == 4


def test_an_async_save_that_nobody_named_holds_the_rank_until_the_time_is_over(
    folder: str,
) -> None:
    rank = rank_of(folder, 0, 1, **{TIMEOUT: "0.2"})
    goes_on = threading.Event()
    thread = threading.Thread(target=goes_on.wait, name="AsyncCheckpointExecutor_0")

    def begin() -> None:
        with rank.save(1):
            thread.start()

    try:
        with pytest.raises(CheckpointError, match=r"async_save of step 1 still goes on 0\.2 s"):
            begin()
    finally:
        goes_on.set()
        thread.join()
    assert rank.resume() is None


@pytest.mark.parametrize("inside", ["", "model/"])
def test_an_async_save_that_nobody_named_counts_wherever_below_the_folder_it_has_written(
    folder: str, inside: str
) -> None:
    rank = rank_of(folder, 0, 1)

    def upload(path: str) -> None:
        for name in ("__0_0.distcp", ".metadata"):
            with fsspec.open(f"{path}/{inside}{name}", "w", auto_mkdir=True) as file:
                file.write("data")

    with rank.save(1) as path:
        thread = threading.Thread(target=upload, args=(path,), name="AsyncCheckpointExecutor_0")
        thread.start()
    thread.join()
    found = newest_in(folder)
    assert found is not None
    assert found.step == 1


@pytest.mark.parametrize("inside", ["", "model/"])
def test_what_dcp_has_not_completed_does_not_count(folder: str, inside: str) -> None:
    rank = rank_of(folder, 0, 1)

    def write(step: int, *files: str) -> None:
        with rank.save(step) as path:
            for name in files:
                with fsspec.open(f"{path}/{inside}{name}", "w", auto_mkdir=True) as file:
                    file.write("data")

    with pytest.raises(CheckpointError, match=rf"no \.metadata beside '{inside}__0_0\.distcp'"):
        write(1, "__0_0.distcp")
    assert rank.resume() is None
    write(2, "__0_0.distcp", ".metadata")
    found = newest_in(folder)
    assert found is not None
    assert found.step == 2


def test_a_save_behind_that_failed_on_one_rank_alone_holds_no_other_in_the_next(
    folder: str,
) -> None:
    ranks = [rank_of(folder, rank, 2, **{TIMEOUT: "20"}) for rank in range(2)]
    done: Future[None] = Future()
    done.set_result(None)
    for rank in ranks:
        with rank.save(1) as path:
            path.after(done)
    behind = ranks[1]._behind
    assert behind is not None
    assert behind.join(SOON)
    behind._error = OSError("its last look was refused")
    told = together(*(save(rank, 2) for rank in ranks))
    assert isinstance(told[0], CheckpointPeerError)
    assert "its last look was refused" in str(told[1])
    together(*(save(rank, 3) for rank in ranks))
    found = newest_in(folder)
    assert found is not None
    assert found.step == 3


def test_what_fails_behind_is_raised_by_the_next_context(folder: str) -> None:
    ranks = [rank_of(folder, rank, 2) for rank in range(2)]
    uploads: list[Future[None]] = [Future(), Future()]
    for rank, upload in zip(ranks, uploads, strict=True):
        with rank.save(1) as path:
            path.after(upload)
    uploads[0].set_result(None)
    uploads[1].set_exception(RuntimeError("the network is away"))
    told = together(*(save(rank, 2) for rank in ranks))
    for error in told:
        assert isinstance(error, CheckpointError)
        assert "step 1, which was saved behind, does not count" in str(error)
        assert "the network is away" in str(error)
    together(*(save(rank, 3) for rank in ranks))
    found = newest_in(folder)
    assert found is not None
    assert found.step == 3


def test_what_no_except_exception_catches_becomes_an_error_that_it_does(folder: str) -> None:
    class DcpError(BaseException):
        pass

    (told,) = together(fail(rank_of(folder, 0, 1), 1, DcpError("disk is full")))
    assert isinstance(told, CheckpointError)
    assert "step 1 does not count: disk is full" in str(told)
    assert isinstance(told.__cause__, DcpError)
    with pytest.raises(KeyboardInterrupt):
        fail(rank_of(folder, 0, 1), 2, KeyboardInterrupt())()


def test_each_end_of_a_save_is_told_once(folder: str) -> None:
    saves = rank_of(folder, 0, 1)
    told: list[object] = []
    saves.entered = lambda: told.append("entered")
    saves.left = lambda: told.append("left")
    saves.ended = told.append
    save(saves, 1)()
    together(fail(saves, 2, RuntimeError("no")))
    upload: Future[None] = Future()
    with saves.save(3) as path:
        path.after(upload)
    upload.set_result(None)
    save(saves, 4)()
    behind = told.index(3)
    assert behind > len(["entered", 1, "left", "entered", None, "left", "entered"])
    told.remove(3)  # it was told by another thread
    one, two, four = (["entered", end, "left"] for end in (1, None, 4))
    assert told == [*one, *two, "entered", "left", *four]


@pytest.mark.parametrize(
    ("step", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError), (None, TypeError)]
)
def test_a_step_that_is_none_is_refused(step: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="step is"):
        Saves({}).save(step)  # type: ignore[arg-type]


def test_a_store_that_refuses_is_told_at_the_entrance(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("a file")
    with pytest.raises(CheckpointStoreError, match="step 1 cannot be begun in"):
        save(rank_of(str(tmp_path / "job"), 0, 1), 1)()


def test_a_context_is_entered_once(folder: str) -> None:
    context = rank_of(folder, 0, 1).save(1)
    with context:
        pass
    with pytest.raises(RuntimeError, match="was entered before"):
        context.__enter__()


def test_a_second_context_beside_an_open_one_is_refused_and_the_first_one_counts(
    folder: str,
) -> None:
    rank = rank_of(folder, 0, 1)
    told: list[str] = []
    rank.entered, rank.left = (lambda: told.append("entered")), (lambda: told.append("left"))
    with rank.save(5) as path:
        before = sorted(open_store(folder).files("."))
        inner, in_a_thread = rank.save(5), rank.save(6)
        with pytest.raises(RuntimeError, match="written already: write both models into one fold"):
            inner.__enter__()
        (error,) = together(in_a_thread.__enter__)
        assert isinstance(error, RuntimeError)
        assert sorted(open_store(folder).files(".")) == before
        assert told == ["entered"]
        with fsspec.open(f"{path}/model", "w") as file:
            file.write("data")
    assert newest_in(folder) == Checkpoint(path, 5, 1)
    save(rank, 6)()
    together(fail(rank, 7, RuntimeError("no")))
    save(rank, 8)()
    found = newest_in(folder)
    assert found is not None
    assert found.step == 8


def test_an_end_while_a_context_is_entered_leaves_none_open(folder: str) -> None:
    rank = rank_of(folder, 0, 1)

    def end() -> None:
        raise Ended

    rank.entered = end
    with pytest.raises(Ended):
        rank.save(5).__enter__()
    rank.entered = lambda: None
    save(rank, 6)()
    found = newest_in(folder)
    assert found is not None
    assert found.step == 6


class Refusing(LocalStore):
    """A file system that does not show what lies in one folder, or in one file."""

    refused = ""

    def get(self, name: str) -> bytes:
        if self.refused and name.endswith(self.refused):
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        return super().get(name)

    def files(self, folder: str) -> dict[str, int]:
        if self.refused and self.refused in super().files(folder):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), folder)
        return super().files(folder)


@pytest.mark.parametrize("refused", ["COMMITTED", "0"])
def test_while_what_counts_cannot_be_looked_at_nothing_is_begun_and_nothing_removed(
    tmp_path: Path, refused: str
) -> None:
    folder = f"{tmp_path}/job"
    for step in (1, 2):
        save(rank_of(folder, 0, 1), step)()
    wanted, there = newest_in(folder), names(folder)
    ranks = [rank_of(folder, rank, 2, **{TIMEOUT: "20"}) for rank in range(2)]
    store = ranks[0]._store = Refusing(folder)
    store.refused = refused
    told = together(*(save(rank, 3) for rank in ranks))
    assert isinstance(told[0], CheckpointStoreError)
    assert "step 3 cannot be begun" in str(told[0])
    assert isinstance(told[1], CheckpointPeerError)  # at once
    assert [name for name in names(folder) if "-3-" not in name] == there
    store.refused = ""
    assert newest_in(folder) == wanted


def test_a_checkpoint_whose_files_cannot_be_looked_at_does_not_count(tmp_path: Path) -> None:
    rank = rank_of(f"{tmp_path}/job", 0, 1)
    store = rank._store = Refusing(f"{tmp_path}/job")
    store.refused = "0"
    with pytest.raises(CheckpointStoreError, match=r"does not count: .*Stale file handle"):
        save(rank, 1)()
    assert newest_in(f"{tmp_path}/job") is None


def test_timeout_is_read_from_the_environment() -> None:
    assert Saves({TIMEOUT: "5"}).place.timeout == 5
