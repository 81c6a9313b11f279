"""Whose standard input a rank has, and what becomes of a terminal."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator

import pytest

from llutil.agent.workers.standard_input import standard_input, terminal_settings_restored
from tests.support import standard_input as support
from tests.support.forks import fork


@pytest.fixture
def terminal() -> Iterator[int]:
    """The end of a new terminal that a program has."""
    ours, programs = os.openpty()
    yield programs
    os.close(programs)
    os.close(ours)


def in_child(run: Callable[[], bool]) -> bool:
    """What ``run`` returns in a child process."""
    pid = fork()
    if pid == 0:
        try:
            os._exit(0 if run() else 1)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, 1}
    return status == 0


def test_it_is_the_agents_for_one_rank_and_empty_for_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with support.standard_input(b""):
        assert [standard_input(ranks) for ranks in (1, 2, 8)] == [0, None, None]
        monkeypatch.setattr(sys, "__stdin__", None)
        assert standard_input(1) is None, "it was closed when this interpreter started"


def test_a_descriptor_that_is_closed_is_nobodys() -> None:
    def closed() -> bool:
        os.close(0)
        return standard_input(1) is None

    assert in_child(closed)


def test_a_job_in_the_background_takes_no_line_of_the_shells(terminal: int) -> None:
    def background() -> bool:
        os.setpgid(0, 0)
        return standard_input(1) is None

    def foreground() -> bool:
        os.login_tty(terminal)
        return standard_input(1) == 0 and in_child(background)

    assert in_child(foreground)


def test_a_terminal_has_its_settings_back_after_a_rank_that_left_others(terminal: int) -> None:
    before = termios.tcgetattr(terminal)
    with terminal_settings_restored(terminal):
        tty.setraw(terminal)
        assert termios.tcgetattr(terminal) != before
    assert termios.tcgetattr(terminal) == before


def test_what_is_no_terminal_any_more_or_never_was_is_left_alone(terminal: int) -> None:
    read, write = os.pipe()
    with terminal_settings_restored(read), terminal_settings_restored(None):
        pass
    with terminal_settings_restored(terminal):
        os.dup2(read, terminal)
    os.close(read)
    os.close(write)
