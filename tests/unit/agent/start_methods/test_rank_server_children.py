"""A rank server waits for none of its workers. It is the test's own process."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from llutil.agent.start_methods.rank_server_children import Children, _exit_status_of
from tests.support.forks import fork


@pytest.fixture
def child() -> Iterator[int]:
    """A process that runs until it is killed."""
    pid = fork()
    if pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(1)
    yield pid
    if _is_child(pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _is_child(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def test_a_status_that_is_not_there_yet_is_told_later(child: int) -> None:
    children = Children(select.poll())
    read, write = os.pipe()
    os.set_blocking(read, False)
    pidfd = children.add(child, write)
    children.on_ready(pidfd)
    children.tell_statuses()
    with pytest.raises(BlockingIOError):
        os.read(read, 64)
    os.kill(child, signal.SIGKILL)
    select.select([pidfd], [], [])
    children.tell_statuses()
    assert os.read(read, 64) == b"-9"
    os.close(read)
    children.on_ready(write)
    assert not _is_child(child)
    assert not children.fds()


def test_a_worker_that_runs_on_without_a_reader_does_not_hold_the_server(child: int) -> None:
    children = Children(select.poll())
    _, write = pipe = os.pipe()
    children._ended[write] = child
    children._poll.register(write, 0)
    children.on_ready(write)
    assert _exit_status_of(child) is None
    os.close(pipe[0])
