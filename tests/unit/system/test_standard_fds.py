"""Closed standard streams of a process are opened, for all that it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llutil.system.standard_fds import open_standard_fds
from tests.support.descriptors import open_descriptors
from tests.support.forks import fork, in_a_fork


@pytest.mark.parametrize("closed", [(0,), (2,), (0, 1, 2)])
def test_closed_streams_are_open_from_then_on_and_inherited(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    pid = fork()
    if pid == 0:
        try:
            for fd in closed:
                os.close(fd)
            for _ in range(2):  # the second finds nothing to do
                open_standard_fds()
            links = [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in closed]
            inherited = all(os.get_inheritable(fd) for fd in closed)
            (tmp_path / "found").write_text(f"{links} {inherited}")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / "found").read_text() == f"{['/dev/null'] * len(closed)} True"


@in_a_fork
def test_open_streams_are_left_alone() -> None:
    before = open_descriptors()
    files = [os.fstat(fd) for fd in range(3)]
    open_standard_fds()
    assert [os.fstat(fd) for fd in range(3)] == files
    assert open_descriptors() == before
