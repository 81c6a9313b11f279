"""One process has a place, and removes what it has put there and nothing else."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from llutil.agent_server.place import PlaceLock, listener_at, place_of, servers


def _place(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / "x.agents"


def test_a_lock_is_one_process_and_its_files_are_removed_once(folder: Path) -> None:
    first = PlaceLock.take(_place(folder))
    assert first is not None
    assert PlaceLock.take(_place(folder)) is None
    first.remove()
    assert not folder.exists()
    second = PlaceLock.take(_place(folder))
    first.remove()
    assert second is not None
    assert PlaceLock.take(_place(folder)) is None


def test_a_lock_that_its_last_holder_removes_meanwhile_is_taken_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = PlaceLock.take(_place(folder))
    assert last is not None
    flock = fcntl.flock

    def removed_first(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        (folder / "x.lock").unlink()
        os.close(last._fd)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    assert PlaceLock.take(_place(folder)) is not None
    assert (folder / "x.lock").exists()
    assert PlaceLock.take(_place(folder)) is None


def test_who_has_lost_its_lock_removes_nothing_of_the_next_one(folder: Path) -> None:
    first = PlaceLock.take(_place(folder))
    (folder / "x.lock").unlink()  # as who clears the temporary folder does
    second = PlaceLock.take(_place(folder))
    assert first is not None
    assert second is not None
    first.remove()
    assert PlaceLock.take(_place(folder)) is None


def test_interpreters_have_a_place_each_in_a_folder_of_this_user_alone(folder: Path) -> None:
    first, second = place_of(sys.executable, folder), place_of("/usr/bin/python3", folder)
    assert first != second
    assert place_of(sys.executable, folder) == first
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(OSError, match="others may use"):
        place_of(sys.executable, folder)
    folder.chmod(0o700)


def test_a_socket_is_this_users_alone_and_replaces_a_dead_one(folder: Path) -> None:
    place = place_of(sys.executable, folder)
    listener_at(place).close()
    assert place.is_socket()
    assert servers(folder) == {}
    umask = os.umask(0)
    try:
        with listener_at(place):
            assert place.stat().st_mode & 0o777 == 0o600
            assert servers(folder) == {place: os.getpid()}
    finally:
        os.umask(umask)
