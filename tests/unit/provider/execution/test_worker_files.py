"""What is put on a worker's disk: private, shown once, and removed."""

from __future__ import annotations

import errno
import os
import tempfile

import pytest

from airflow_provider.execution.worker_files import (
    OrphanLogFile,
    TaskLogFolder,
    first_time,
    kept_folder,
    user_folder,
)
from llutil.errors import InfrastructureError
from llutil.launcher.run_id import TaskKey


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_user_has_one_folder_that_nobody_else_may_enter(temporary):
    folder = user_folder()
    assert folder == user_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == [folder]


@pytest.mark.parametrize("trap", ["link", "open to all", "a file"])
def test_a_folder_that_somebody_else_prepared_is_not_used(temporary, trap):
    path = temporary / f"elastic-launch-{os.getuid()}"
    match trap:
        case "link":
            (temporary / "elsewhere").mkdir(mode=0o700)
            path.symlink_to("elsewhere")
        case "open to all":
            path.mkdir()
            path.chmod(0o777)
        case _:
            path.touch()
    folder = user_folder()
    assert folder != path
    assert folder.stat().st_mode & 0o777 == 0o700
    before = set(temporary.iterdir())
    assert [user_folder() for _ in range(3)] == [folder] * 3, "later tries find the same one"
    assert set(temporary.iterdir()) == before


@pytest.mark.parametrize("lost", ["permissions", "owner"])
def test_a_temporary_directory_that_keeps_no_permissions_is_refused_at_once(
    temporary, monkeypatch, lost
):
    make, user, made = os.mkdir, os.getuid(), []

    def make_as_the_mount_says(path, *_):
        made.append(path)
        assert len(made) < 10, "one folder after the other is made"
        make(path, 0o777)
        path.chmod(0o777 if lost == "permissions" else 0o700)

    monkeypatch.setattr(os, "mkdir", make_as_the_mount_says)
    if lost == "owner":
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with pytest.raises(InfrastructureError, match=f"{temporary}, this.*; set TMPDIR"):
        user_folder()
    assert list(temporary.iterdir()) == []
    assert first_time("a text")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_temporary_directory_that_takes_nothing_is_a_fault_of_this_worker(monkeypatch, number):
    def refuse(path, *_):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(InfrastructureError, match=f"{os.strerror(number)}.*; set TMPDIR"):
        user_folder()
    assert first_time("a text")


def test_a_worker_without_any_temporary_directory_says_so(monkeypatch):
    def refuse():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    with pytest.raises(InfrastructureError, match=r"found in \['/tmp'\].*; set TMPDIR"):
        user_folder()


def test_values_of_a_deleted_run_with_the_same_id_are_in_another_folder():
    def folder(run_after, try_number=1):
        return kept_folder(TaskKey("d", "t", "r", -1, run_after), "here", try_number)

    assert folder("2026-01-01T10:00:00+00:00") != folder("2026-02-02T10:00:00+00:00")
    assert folder("2026-01-01T10:00:00+00:00") == folder("2026-01-01T10:00:00+00:00")
    assert folder("", 1).name.replace(".try_1.", ".try_2.") == folder("", 2).name
    assert kept_folder(TaskKey("d", "t", "r"), "here", 1) != kept_folder(
        TaskKey("d", "t", "r"), "there", 1
    )


def test_tasks_that_begin_at_the_same_moment_agree_on_a_folder(temporary, monkeypatch):
    path = temporary / f"elastic-launch-{os.getuid()}"
    path.touch()
    make, found = os.mkdir, []

    def another_is_quicker(*args):
        if len(found) < 10:
            found.append(None)
            found.append(user_folder())
        make(*args)

    monkeypatch.setattr(os, "mkdir", another_is_quicker)
    found.append(user_folder())
    assert {*found} == {None, temporary / f"{path.name}-1"}


def test_another_users_folders_are_passed_over(temporary):
    path = temporary / f"elastic-launch-{os.getuid()}"
    path.touch()
    (temporary / f"{path.name}-1").symlink_to(temporary)
    (temporary / f"{path.name}-2").mkdir()
    (temporary / f"{path.name}-2").chmod(0o777)
    assert [user_folder() for _ in range(3)] == [temporary / f"{path.name}-3"] * 3


def test_an_orphan_log_is_shown_once(temporary):
    orphan_log = OrphanLogFile(temporary, "job")
    assert orphan_log.take() == []
    orphan_log.path.write_bytes(b"one\ntwo \xff\n")
    assert orphan_log.take() == ["one", "two �"]
    assert orphan_log.take() == []
    orphan_log.remove()
    orphan_log.remove()
    assert list(temporary.iterdir()) == []


def test_what_an_agent_still_appends_while_the_next_try_runs_is_not_lost(temporary):
    orphan_log = OrphanLogFile(temporary, "job")
    with orphan_log.path.open("ab", buffering=0) as agent:
        agent.write(b"before\n")
        assert orphan_log.take() == ["before"]
        agent.write(b"after\n")
        assert orphan_log.take() == ["after"]


def test_only_the_end_of_a_huge_orphan_log_is_shown(temporary):
    orphan_log = OrphanLogFile(temporary, "job")
    orphan_log.path.write_bytes(b"".join(b"%09d\n" % number for number in range(50_000)))
    lines = orphan_log.take()
    assert lines[-1] == "000049999"
    assert len(lines) < 30_000


def test_log_files_that_say_something_are_kept_and_others_are_not(temporary):
    for content, kept in ((b"", False), (b"Traceback", True)):
        logs = TaskLogFolder(temporary)
        (logs.path / "run" / "0").mkdir(parents=True)
        (logs.path / "run" / "0" / "error.json").write_bytes(content)
        assert logs.keep_if_used() is kept
        assert logs.path.exists() is kept
        logs.remove()
    assert list(temporary.iterdir()) == []


def test_a_new_log_folder_sweeps_away_what_killed_tasks_have_left_unless_it_says_something(
    temporary,
):
    used, empty, young, running = (TaskLogFolder(temporary) for _ in range(4))
    (used.path / "error.json").write_text("Traceback")
    (empty.path / "attempt_0").mkdir()
    for logs in (used, empty, young):
        logs.close()  # as the kernel does for a task that was killed
    for logs in (used, empty, running):
        os.utime(logs.path, (0, 0))
    new = TaskLogFolder(temporary)
    left = {logs.path for logs in (used, young, running, new)}
    assert set(temporary.iterdir()) == left
    for logs in (used, young, running, new):
        logs.remove()


def test_a_text_is_new_once_a_day(temporary):
    assert [first_time("a"), first_time("b"), first_time("a")] == [True, True, False]
    for file in user_folder().glob("said-*"):
        os.utime(file, (0, file.stat().st_mtime - 86401))
    assert [first_time("a"), first_time("a")] == [True, False]


def test_a_text_that_cannot_be_remembered_is_new_each_time(temporary, monkeypatch):
    def refused():
        raise PermissionError

    monkeypatch.setattr("airflow_provider.execution.worker_files.user_folder", refused)
    assert [first_time("a"), first_time("a")] == [True, True]
