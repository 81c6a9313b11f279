"""The agent's side of the guardian: nothing that the guardian does, or does not do, stops the
agent's loop.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.guardian import client
from llutil.agent.guardian.client import Guardian
from llutil.system.process_table import children_of_this_process, stat_of
from tests.support.descriptors import open_descriptors
from tests.support.forks import in_a_fork

LIMIT = 20.0  # seconds; a test that waits so long has failed


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a process that was killed may take seconds to end."""
    monkeypatch.setattr(client, "HELPER_ENDED", LIMIT)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as loop:
        yield loop


@contextmanager
def session() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, which ends by a signal only."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def start_of(process: subprocess.Popen[bytes]) -> int:
    stat = stat_of(process.pid)
    assert stat is not None
    return stat.start


def held() -> tuple[set[int], set[int]]:
    """The descriptors and the children of this process."""
    return open_descriptors(), {*children_of_this_process()}


def many_rounds(guardian: Guardian, kept: tuple[int, ...] = ()) -> float:
    """Tell it of more sessions than a pipe holds, beside ``kept``; how long that took."""
    began = time.monotonic()
    for number in range(20_000):
        guardian.watch(2**40 + number, 1)
        guardian.forget_all_but(kept)
    return time.monotonic() - began


def in_time(act: object) -> None:
    """Call ``act`` on a thread of its own, which may be stuck."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive(), "it waits for the guardian"


def test_a_guardian_that_is_stopped_is_not_waited_for_but_replaced(
    loop: EventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    guardian = Guardian("no mark", loop)
    first = guardian.pid
    try:
        with session() as process:
            guardian.watch(process.pid, start_of(process))
            os.kill(first, signal.SIGSTOP)
            in_time(lambda: many_rounds(guardian, (process.pid,)))
            assert loop.until(lambda: guardian.pid != first, time.monotonic() + LIMIT)
            warned = [r.message for r in caplog.records if r.levelno == logging.WARNING]
            assert [text for text in warned if "reads nothing" in text] == [
                f"the guardian, process {first}, reads nothing: it is killed"
            ]
            # As if the agent had been killed: the new one knows the session.
            guardian._close_pipe()
            assert process.wait(LIMIT) == -signal.SIGKILL
    finally:
        if guardian.pid == first:
            os.kill(first, signal.SIGCONT)
        guardian.close()


def test_words_that_a_slow_guardian_had_no_room_for_reach_it_in_order(loop: EventLoop) -> None:
    guardian = Guardian("no mark", loop)
    first = guardian.pid
    try:
        with session() as watched, session() as forgotten:
            os.kill(first, signal.SIGSTOP)
            for number in range(2500):  # more than the pipe holds, less than what is kept
                guardian.watch(2**40 + number, 1)
                guardian.forget_all_but(())
            assert guardian._unwritten
            guardian.watch(forgotten.pid, start_of(forgotten))
            guardian.watch(watched.pid, start_of(watched))
            guardian.forget_all_but({watched.pid})
            os.kill(first, signal.SIGCONT)
            assert loop.until(lambda: not guardian._unwritten, time.monotonic() + LIMIT)
            assert guardian.pid == first
            guardian._close_pipe()
            assert watched.wait(LIMIT) == -signal.SIGKILL
            assert forgotten.poll() is None
    finally:
        guardian.close()


def test_a_job_ends_beside_a_stopped_guardian(loop: EventLoop) -> None:
    guardian = Guardian("no mark", loop)
    with session() as process:
        guardian.watch(process.pid, start_of(process))
        os.kill(guardian.pid, signal.SIGSTOP)
        in_time(guardian.close)
        assert process.poll() is None
        assert guardian.fds() == set()


def forks_refused(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EAGAIN, "no more processes")


def descriptors_refused(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, "no more descriptors")


FAULTS = pytest.mark.parametrize(
    ("module", "name", "fault"),
    [(subprocess, "Popen", forks_refused), (os, "pidfd_open", descriptors_refused)],
)


@FAULTS
@in_a_fork
def test_a_guardian_that_cannot_be_replaced_stops_no_job(
    loop: EventLoop,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    name: str,
    fault: Callable[..., NoReturn],
) -> None:
    before = held()
    guardian = Guardian("no mark", loop)
    os.kill(guardian.pid, signal.SIGKILL)
    with monkeypatch.context() as patches:
        patches.setattr(module, name, fault)
        loop.until(lambda: not guardian.fds(), time.monotonic() + LIMIT)
    assert held() == before
    errors = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert ["this job goes on without one" in text for text in errors] == [True]
    guardian.watch(2**40, 1)
    guardian.close()


@FAULTS
@in_a_fork
def test_a_first_guardian_that_cannot_be_started_leaves_nothing(
    loop: EventLoop,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    name: str,
    fault: Callable[..., NoReturn],
) -> None:
    before = held()
    with monkeypatch.context() as patches:
        patches.setattr(module, name, fault)
        with pytest.raises(OSError, match="no more"):
            Guardian("no mark", loop)
    assert held() == before


@in_a_fork
def test_a_guardian_that_is_kept_knows_nothing_of_the_job_before(loop: EventLoop) -> None:
    before = held()
    guardian = Guardian("no mark", loop)
    first = guardian.pid
    with session() as earlier, session() as later:
        guardian.watch(earlier.pid, start_of(earlier))
        guardian.keep()
        with EventLoop() as other:
            guardian.take_up(other)
            assert guardian.pid == first
            guardian.watch(later.pid, start_of(later))
            guardian._close_pipe()  # as if the agent had been killed
            assert later.wait(LIMIT) == -signal.SIGKILL
            assert earlier.poll() is None
            guardian.keep()
    guardian.close()
    assert held() == before


def test_a_guardian_that_has_ended_before_the_next_job_is_replaced(loop: EventLoop) -> None:
    guardian = Guardian("no mark", loop)
    first = guardian.pid
    guardian.keep()
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    guardian.take_up(loop)
    assert guardian.pid != first
    guardian.close()
