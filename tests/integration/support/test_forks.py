"""A test that is ``in_a_fork`` fails as any other, and leaves no process."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import forks
from tests.support.forks import in_a_fork


@in_a_fork
def passes(parent: int) -> None:
    assert os.getppid() == parent
    assert threading.active_count() == 1


@in_a_fork
def fails() -> None:
    assert [1, 2] == [1, 3]


@in_a_fork
def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@in_a_fork
def takes_too_long() -> None:
    time.sleep(600)


def test_it_runs_in_a_process_of_its_own_without_other_threads() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    passes(os.getpid())
    over.set()
    thread.join()


def test_what_it_raises_is_told_with_its_traceback() -> None:
    with pytest.raises(AssertionError, match=r"(?s)in fails\b.*\[1, 2\] == \[1, 3\]"):
        fails()


def test_one_that_dies_has_failed() -> None:
    with pytest.raises(AssertionError, match="the fork ended with -9"):
        is_killed()


def test_one_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, waited = os.waitpid, []

    def out_of_time(pid: int, options: int) -> tuple[int, int]:
        waited.append(pid)
        if waited == [pid]:
            raise TimeoutError
        return wait(pid, options)

    monkeypatch.setattr(forks, "os", SimpleNamespace(**{**vars(os), "waitpid": out_of_time}))
    with pytest.raises(TimeoutError):
        takes_too_long()
    assert len(waited) == 2
    assert not Path(f"/proc/{waited[0]}").exists()
