"""Gates between real processes: what a rank that runs freely does, and who waits for the dead."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from llutil.events.events import Events
from llutil.events.gate import Kinds
from llutil.events.rank_slot import Doing
from llutil.events.steps import Steps
from tests.support.forks import fork

pytestmark = pytest.mark.fault

SOON = 30.0

Start = Callable[[Callable[[], object]], int]
"""Starts a process that calls this; returns its pid."""


@pytest.fixture
def page(temporary: Path) -> Iterator[Events]:
    with Events(folder=temporary) as events:
        yield events


def later() -> float:
    return time.monotonic() + SOON


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs a function in a process of its own, which is killed at the end, whatever a test left."""
    pidfds: list[int] = []

    def forked(work: Callable[[], object]) -> int:
        pid = fork()
        if pid == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        pidfds.append(os.pidfd_open(pid))
        return pid

    yield forked
    for pidfd in pidfds:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with suppress(ChildProcessError):  # the test has waited for it
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def until(condition: Callable[[], bool]) -> None:
    deadline = later()
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def train(page: Events, rank: int, path: Path) -> None:
    """Steps as fast as they go, until a stop; then write where something was asked for. The ranks
    are 50 steps apart at most.
    """
    steps, other = Steps(page.slot(rank), page.gate), page.slot(1 - rank)
    acts = []
    for step in itertools.count(1):
        while other.step < step - 50:
            os.sched_yield()
        todo = steps.step(step, 0)
        if todo.checkpoint:
            acts.append(step)
        if todo.stop:
            break
    path.write_text(json.dumps([*acts, step]))


def test_ranks_at_full_speed_miss_no_gate_and_act_at_one_step(
    page: Events, temporary: Path, start: Start
) -> None:
    """Each gate is raised while the ranks run on."""
    paths = [temporary / str(rank) for rank in range(2)]
    pids = [start(partial(train, page, rank, path)) for rank, path in enumerate(paths)]
    until(lambda: len(page.progress()) == 2)
    decided = []
    for number in range(1, 41):
        until(lambda number=number: all(page.slot(rank).gate >= number - 1 for rank in range(2)))
        raised = page.gate.raise_gate(number, later())
        assert raised.furthest is not None, raised
        kinds = Kinds.CHECKPOINT if number < 40 else Kinds.STOP
        assert page.gate.open_gate(number, raised.furthest, kinds)
        decided.append(raised.furthest)
        until(lambda: all(page.slot(rank).step >= decided[-1] for rank in range(2)))
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert [json.loads(path.read_text()) for path in paths] == [sorted(set(decided))] * 2


def test_ranks_that_are_held_by_an_agent_that_is_killed_go_on(
    page: Events, temporary: Path, start: Start
) -> None:
    def hold() -> None:
        page.gate.raise_gate(1, time.monotonic() + 3600)
        signal.pause()

    agent = start(hold)
    until(lambda: page.gate.words[8] == 1)

    def free() -> None:
        steps = Steps(page.slot(0), page.gate)
        for step in (1, 2):
            assert steps.step(step, 0) == (False, False)

    rank = start(free)
    until(lambda: page.slot(0).doing == Doing.HELD)
    kill(agent)
    assert os.waitpid(rank, 0)[1] == 0


def test_ranks_are_held_by_an_agent_that_is_stopped_no_longer_than_it_said(
    page: Events, start: Start
) -> None:
    def hold() -> None:
        page.gate.raise_gate(1, time.monotonic() + 0.1)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(int(page.gate.open_gate(1, 5, Kinds.STOP)))

    agent = start(hold)
    os.waitpid(agent, os.WUNTRACED)
    steps = Steps(page.slot(0), page.gate)
    assert steps.step(5, 0) == (False, False)
    os.kill(agent, signal.SIGCONT)
    assert os.waitpid(agent, 0)[1] == 0  # it opened it too late, and knows that
    assert steps.step(6, 0) == (False, False)


def test_a_rank_that_is_killed_while_it_is_held_hinders_nobody(page: Events, start: Start) -> None:
    def one_step(rank: int) -> None:
        Steps(page.slot(rank), page.gate).step(1, 0)

    pids = [start(partial(one_step, rank)) for rank in range(2)]
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    assert page.gate.raise_gate(1, later()).furthest == 2

    def stop_at_two(rank: int) -> None:
        assert Steps(page.slot(rank), page.gate).step(2, 0) == (False, True)

    pids = [start(partial(stop_at_two, rank)) for rank in range(2)]
    until(lambda: all(page.slot(rank).doing == Doing.HELD for rank in range(2)))
    kill(pids[0])
    assert page.gate.open_gate(1, 2, Kinds.STOP)
    assert os.waitpid(pids[1], 0)[1] == 0
