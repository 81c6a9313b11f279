from __future__ import annotations

from pathlib import Path

import pytest

from llutil.preflight.host import (
    Grade,
    check_files,
    check_folder,
    check_processes,
    check_shared_memory,
    check_torch,
    installed,
    read_file_limit,
    read_process_limits,
    read_shared_memory,
)

MIB = 1 << 20
OK, WARNING, ERROR = Grade


@pytest.mark.parametrize(
    ("found", "grade", "text"),
    [
        (None, WARNING, "is missing: event pages go to the folder for temporary files"),
        ((64 * MIB, 64 * MIB), WARNING, "64 MiB of 64 MiB are free: batches of a DataLoader's"),
        ((8192 * MIB, 0), ERROR, "0 MiB of 8.0 GiB are free, and a job needs 1 MiB"),
        ((8192 * MIB, 4096 * MIB), OK, "4.0 GiB of 8.0 GiB are free"),
    ],
)
def test_shared_memory(found: tuple[int, int] | None, grade: Grade, text: str) -> None:
    check = check_shared_memory(found)
    assert check.grade is grade
    assert text in check.text


@pytest.mark.parametrize(
    ("limit", "ranks", "grade"),
    [(None, 8, OK), (100, 8, ERROR), (256, 8, WARNING), (4096, 8, OK), (1024, 100, ERROR)],
)
def test_open_files(limit: int | None, ranks: int, grade: Grade) -> None:
    check = check_files(limit, ranks)
    assert check.grade is grade
    assert grade is OK or "ulimit -n 65536" in check.text


@pytest.mark.parametrize(
    ("limits", "grade", "text"),
    [
        ({}, OK, "no limit"),
        ({"ulimit -u": 9000, "pids.max": 20}, ERROR, "pids.max allows 20 processes and threads"),
        ({"ulimit -u": 300}, WARNING, "8 ranks may want 512: raise it"),
        ({"ulimit -u": 9000}, OK, "ulimit -u allows 9000"),
    ],
)
def test_processes(limits: dict[str, int], grade: Grade, text: str) -> None:
    check = check_processes(limits, 8)
    assert check.grade is grade
    assert text in check.text


@pytest.mark.parametrize(
    ("found", "grade", "text"),
    [
        ("", ERROR, "pip install 'airflow-provider-elastic-launch[torch]'"),
        ("2.12.1", ERROR, "2.12.1 is older than 2.13"),
        ("2.13.0+cpu", OK, "2.13.0+cpu, with Python 3."),
        ("3.0", OK, "3.0, with"),
    ],
)
def test_torch(found: str, grade: Grade, text: str) -> None:
    check = check_torch(found)
    assert check.grade is grade
    assert text in check.text


def test_a_folder_that_is_not_there_yet_is_looked_for_above(tmp_path: Path) -> None:
    assert check_folder("log files", str(tmp_path / "a" / "b")).grade is not ERROR
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error() -> None:
    check = check_folder("log files", "/proc/1/a")
    assert check.grade is ERROR
    assert check.text.startswith("/proc/1/a cannot be written: ")


@pytest.mark.parametrize("folder", [f"/tmp/{'a' * 300}/b", "/dev/null/a"])
def test_a_folder_that_cannot_even_be_looked_at_is_an_error(folder: str) -> None:
    check = check_folder("log files", folder)
    assert check.grade is ERROR
    assert check.text.startswith(f"{folder} cannot be written: ")


def test_what_is_read_here_is_what_there_is() -> None:
    size, free = read_shared_memory() or (0, 0)
    assert size >= free > 0
    assert read_shared_memory("/no/such/folder") is None
    limit = read_file_limit()
    assert limit is None or limit > 0
    assert all(value > 0 for value in read_process_limits().values())
    assert installed("msgspec")
    assert not installed("no-such-distribution")
