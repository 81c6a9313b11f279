"""What each store does, and which store a path or a URI names."""

from __future__ import annotations

import errno
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from llutil.checkpoints.committed import look
from llutil.checkpoints.local_store import LocalStore
from llutil.checkpoints.remote_store import RemoteStore
from llutil.checkpoints.store import PROBE, Store, check_store, open_store
from llutil.errors import ConfigError, InfrastructureError


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield open_store(str(tmp_path / "job"))
        return
    store = open_store(f"memory://{uuid.uuid4().hex}/job")
    yield store
    store.remove("")


def write(store: Store, name: str, content: bytes) -> None:
    """What user code does."""
    with fsspec.open(store.path(name), "wb") as file:
        file.write(content)


def test_a_store_without_anything_in_it_is_empty(store: Store) -> None:
    assert store.names("") == []
    assert store.names("a/b") == []
    assert store.files("a") == {}
    store.remove("a")
    with pytest.raises(FileNotFoundError):
        store.get("a/b")


def test_what_was_put_is_there_and_can_be_replaced(store: Store) -> None:
    store.make("a/b")
    store.put("a/b/c", b"")
    store.put("a/b/c", b"two", durable=True)
    assert store.get("a/b/c") == b"two"
    assert store.names("a/b") == ["c"]
    assert store.names("a") == ["b"]


def test_files_that_others_wrote_have_their_sizes(store: Store) -> None:
    store.make("a/deep")
    write(store, "a/one", b"1")
    write(store, "a/deep/three", b"333")
    store.sync("a")
    assert store.files("a") == {"one": 1, "deep/three": 3}


def test_a_removed_folder_is_gone_with_all_in_it_and_others_stay(store: Store) -> None:
    for name in ("a", "b"):
        store.make(name)
        store.put(f"{name}/COMMITTED", b"")
        write(store, f"{name}/file", b"1")
    store.remove("a")
    assert store.names("") == ["b"]
    assert store.files("b") == {"COMMITTED": 0, "file": 1}


@pytest.mark.parametrize(("own", "other"), [("x[1]", "x1"), ("x*", "x1"), ("x?", "x1")])
@pytest.mark.parametrize("root", ["local", "memory"])
def test_what_is_removed_is_the_folder_of_that_name_and_not_what_it_matches_as_a_pattern(
    own: str, other: str, root: str, tmp_path: Path
) -> None:
    above = f"{tmp_path}" if root == "local" else f"memory://{uuid.uuid4().hex}"
    ours, theirs = open_store(f"{above}/{own}/job"), open_store(f"{above}/{other}/job")
    for store in (ours, theirs):
        store.make(".attempts/a")
        store.put(".attempts/a/0-left", b"")
        store.make("step[1]/deep")
        write(store, "step[1]/deep/[1]*", b"1")
        store.put("step[1]/COMMITTED", b"")
    ours.remove(".attempts")
    ours.remove("step[1]")
    assert ours.names("") == []
    assert theirs.files("") == {
        ".attempts/a/0-left": 0,
        "step[1]/deep/[1]*": 1,
        "step[1]/COMMITTED": 0,
    }


@pytest.mark.parametrize("refused", ["a", "a/deep"])
def test_files_that_cannot_be_listed_are_not_left_out(
    store: Store, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.make("a/deep")
    write(store, "a/one", b"1")
    write(store, "a/deep/three", b"333")
    wanted = {"one": 1, "deep/three": 3}
    name = "scandir" if isinstance(store, LocalStore) else "ls"
    owner = store._client if isinstance(store, RemoteStore) else os
    real = getattr(owner, name)

    def refuse(path: str | Path, *args: object, **more: object) -> object:
        if str(path).rstrip("/").endswith(refused):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        with pytest.raises(OSError, match="Input/output error"):
            store.files("a")
    assert store.files("a") == wanted


def test_no_file_is_put_into_a_local_folder_that_was_removed(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.make("a")
    store.remove("a")
    with pytest.raises(FileNotFoundError):
        store.put("a/COMMITTED", b"")
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_removal_left_is_removed_too(tmp_path: Path) -> None:
    (tmp_path / ".removed-step-1-x").mkdir()
    LocalStore(str(tmp_path)).remove("a")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file_neither_counts_nor_hinders(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("nowhere")
    store.sync("a")
    assert store.files("a") == {}


@pytest.mark.parametrize("uri", ["file://{}/with%20space", "local://{}/with space"])
def test_a_file_uri_is_a_local_folder(uri: str, tmp_path: Path) -> None:
    store = open_store(uri.format(tmp_path))
    assert isinstance(store, LocalStore)
    assert store.path("a") == f"{tmp_path}/with space/a"


@pytest.mark.parametrize("folder", ["run#1/job", "run?1/job", "[1]/job", "run;1/job"])
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_folder_is_the_whole_of_what_a_uri_names(scheme: str, folder: str) -> None:
    path = open_store(f"{scheme}:///{folder}").path("a")
    assert path.removeprefix("memory://") == f"/{folder}/a"


def test_a_relative_path_stays_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("checkpoints")
    monkeypatch.chdir("/")
    assert store.path("a") == f"{tmp_path}/checkpoints/a"


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("nosuch://bucket/a", "nosuch"),
        ("file://elsewhere/a", "of the host 'elsewhere'"),
        ("/proc/none", "cannot be written into '/proc/none'"),
    ],
)
def test_a_store_that_cannot_be_used_is_bad_configuration(folder: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_store(folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_store_that_is_full_at_present_can_be_tried_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LocalStore, "put", full)
    with pytest.raises(InfrastructureError, match="Free some space there"):
        check_store(str(tmp_path / "job"))
    assert not [*(tmp_path / "job").iterdir()]


def test_a_folder_that_takes_files_but_no_fsync_is_found_before_a_job_relies_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written into .*: .*Invalid argument"):
        check_store(str(tmp_path / "job"))
    assert not [*(tmp_path / "job").iterdir()]


def test_a_check_leaves_nothing_in_the_store(store: Store) -> None:
    root = store.path("").rstrip("/")
    check_store(root)
    assert store.names("") == []


def test_nodes_that_check_a_store_at_one_moment_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = LocalStore.make

    def made_while_another_removes(store: LocalStore, name: str) -> None:
        make(store, name)
        LocalStore(str(tmp_path)).remove("something")

    monkeypatch.setattr(LocalStore, "make", made_while_another_removes)
    check_store(str(tmp_path))


def test_what_only_tried_a_store_is_no_foreign_folder(store: Store) -> None:
    write(store, f"{PROBE}1/file", b"x")
    assert not look(store, "job").ignored


def test_a_uri_without_fsspec_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "llutil.checkpoints.remote_store", raising=False)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match="need fsspec, which is not installed"):
        open_store("s3://bucket/a")


def test_what_a_stores_client_raises_is_an_error_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    store = RemoteStore("memory://broken")

    def refuse(*args: object, **more: object) -> None:
        raise RuntimeError("no credentials")

    monkeypatch.setattr(store._client, "pipe_file", refuse, raising=False)
    with pytest.raises(OSError, match="memory://broken/a: RuntimeError: no credentials"):
        store.put("a", b"")
    monkeypatch.undo()
