"""Where a job's checkpoints lie, and what its ranks are told of them."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from llutil.checkpoints.committed import ATTEMPTS
from llutil.checkpoints.job_environment import (
    check_checkpoint_path,
    checkpoint_environment,
    every_seconds,
    newest_checkpoint,
    note_success,
)
from llutil.checkpoints.local_store import LocalStore
from llutil.checkpoints.marker import MARKER, Marker, encode
from llutil.checkpoints.place import EVERY, FOLDER, KEEP, RESUME
from llutil.errors import ConfigError
from llutil.job_name import name_by_chance
from llutil.launcher.config import LaunchConfig


def config(**values: Any) -> LaunchConfig:
    return LaunchConfig(1, 1, 1, **values)


def folder(path: str | os.PathLike[str], run_id: str = "run", **values: Any) -> str:
    return checkpoint_environment(config(checkpoint_path=path, **values), run_id)[FOLDER]


def test_without_a_path_ranks_are_told_nothing() -> None:
    nothing = config(checkpoint_keep=5, resume="never", checkpoint_job="x")
    assert checkpoint_environment(nothing, "run") == {}
    assert every_seconds(nothing) is None
    check_checkpoint_path(nothing, "run")


def test_ranks_are_told_where_how_often_and_how_many() -> None:
    told = checkpoint_environment(
        config(checkpoint_path="/c", checkpoint_every="100", checkpoint_keep=5), "run"
    )
    assert told == {FOLDER: "/c/run", EVERY: "100", KEEP: "5", RESUME: "auto"}


def test_ranks_are_told_whether_they_resume() -> None:
    told = checkpoint_environment(config(checkpoint_path="/c", resume="never"), "run")
    assert told == {FOLDER: "/c/run", KEEP: "3", RESUME: "never"}


def test_ranks_count_steps_and_the_agent_counts_seconds() -> None:
    steps = config(checkpoint_path="/c", checkpoint_every=10)
    time = config(checkpoint_path="/c", checkpoint_every="10min")
    assert every_seconds(steps) is None
    assert every_seconds(time) == 600.0
    assert EVERY not in checkpoint_environment(time, "run")


def test_the_jobs_folder_is_the_job_or_the_run_or_the_path_itself() -> None:
    named = config(checkpoint_path="/c/", run_id="a+b:c~d")
    assert folder("/c", checkpoint_job="job") == "/c/job"
    assert checkpoint_environment(named, "run")[FOLDER] == "/c/a+b:c~d"
    assert folder("/c", "derived") == "/c/derived"
    assert folder("/c/", name_by_chance()) == "/c"


@pytest.mark.parametrize("name", ["../../etc", "a/b", "/etc", "..", ".attempts", "a b", "x" * 201])
def test_no_name_leads_out_of_the_path_and_two_names_never_meet(name: str) -> None:
    found = folder("/c", checkpoint_job=name)
    assert Path(found).parent == Path("/c")
    assert os.path.normpath(found) == found
    assert found != folder("/c", checkpoint_job=f"{name} ")
    assert found == folder("/c", checkpoint_job=name)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("s3://bucket/c/", "s3://bucket/c/run"),
        ("memory://", "memory://run"),
        ("file:///c", "file:///c/run"),
        ("/", "/run"),
        (Path("/c"), "/c/run"),
        ("/a/../c", "/c/run"),
    ],
)
def test_a_folder_is_below_its_path_or_uri(path: str | Path, found: str) -> None:
    assert folder(path) == found


def test_a_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    assert folder("c") == f"{tmp_path}/c/run"
    assert folder("~/c") == "/home/ann/c/run"
    with pytest.raises(ConfigError, match="is '~nobody-here/c', but this host has no such user"):
        folder("~nobody-here/c")


def test_the_check_makes_the_jobs_folder_and_nothing_in_it(tmp_path: Path) -> None:
    check_checkpoint_path(config(checkpoint_path=tmp_path / "c"), "run")
    assert list((tmp_path / "c").iterdir()) == [tmp_path / "c" / "run"]
    assert list((tmp_path / "c" / "run").iterdir()) == []
    root = f"memory://{uuid.uuid4().hex}"
    check_checkpoint_path(config(checkpoint_path=root), "run")
    memory = fsspec.filesystem("memory")
    assert memory.find(root) == []
    memory.rm(root, recursive=True)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/proc/c", "is '/proc/c': checkpoints cannot be written into '/proc/c/run': .* Wanted a"),
        ("/dev/null/c", "is '/dev/null/c': checkpoints cannot be written into .*Not a directory"),
        ("nosuch://bucket", "is 'nosuch://bucket': 'nosuch://bucket/run' cannot .* not known"),
        ("file://elsewhere/c", "is 'file://elsewhere/c': .* is a folder of the host 'elsewhere'"),
    ],
)
def test_a_path_that_cannot_be_used_is_bad_configuration(path: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as raised:
        check_checkpoint_path(config(checkpoint_path=path), "run")
    assert [problem.field for problem in raised.value.problems] == ["checkpoint_path"]


def test_while_a_marker_cannot_be_read_no_success_is_noted_and_nothing_called_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = tmp_path / "job"
    for number in (1, 2):
        saved = job / f"step-{number}-0123456789ab"
        saved.mkdir(parents=True)
        marker = Marker(step=number, world_size=1, job="job", number=number)
        (saved / MARKER).write_bytes(encode(marker))
    get = LocalStore.get

    def refuse(store: LocalStore, name: str) -> bytes:
        if name.startswith("step-2"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return get(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "get", refuse)
        assert not note_success(str(job))
        assert newest_checkpoint(str(job)) is None
    assert "nobody can say which checkpoint is the newest" in caplog.text
    assert sorted(path.name[:6] for path in job.iterdir()) == ["step-1", "step-2"]
    assert note_success(str(job))
    assert (job / ".succeeded-2").exists()


def test_notes_of_saves_go_at_a_success_that_a_full_disk_cannot_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = tmp_path / "job"
    saved = job / "step-1-0123456789ab"
    saved.mkdir(parents=True)
    (saved / MARKER).write_bytes(encode(Marker(step=1, world_size=1, job="job", number=1)))
    (job / ATTEMPTS / "0123456789ab").mkdir(parents=True)
    monkeypatch.setattr(LocalStore, "put", full)
    assert not note_success(str(job))
    assert not (job / ATTEMPTS).exists()
