"""A rank whose step stands still is no hang while somebody holds the ranks of its node, and time in
which a rank that has returned stood still is given to it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.hang import exit_watch, hang_finder
from llutil.agent.hang.hang_finder import HangFinder
from llutil.agent.hang.hang_watch import AUTO, HangTimeout
from llutil.agent.hang.take_stacks import TakenStack
from llutil.agent.worker_side.outcome_pipe import Returned
from llutil.agent.workers import rank, rank_group
from llutil.events.events import Events
from llutil.events.rank_slot import Doing
from llutil.system.process_table import ProcessStat
from tests.unit.agent.stand_ins import NO_PROCESS, Starter, group_of

TIMEOUT = 100.0  # seconds


class Node:
    """One rank that has made a step and makes no other, watched on a clock of the test's own."""

    def __init__(self, events: Events, loop: EventLoop) -> None:
        self.now = 0.0
        self.events = events
        self.stuck: list[str] = []
        events.slot(0).report(7, 10)
        rank = SimpleNamespace(
            plan=SimpleNamespace(local_rank=0, rank=0),
            process=SimpleNamespace(pid=2**22 + 1),
            ended=None,
            reported_error=False,
            take_as_stuck=lambda kind, text, trace: self.stuck.append(text),
        )
        self.ranks: Any = SimpleNamespace(returned=[], overdue=[], running=[rank])
        self.finder = HangFinder(TIMEOUT, events, loop)
        self.finder.begin()

    def stands(self, seconds: float) -> list[str]:
        """What was found in so many seconds more."""
        end = self.now + seconds
        while not self.stuck and self.now < end:
            self.now = self.finder.next_look
            self.finder.look(self.ranks, one_node=True)
        return self.stuck


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    clock = SimpleNamespace(monotonic=lambda: node.now if node else 0.0)
    monkeypatch.setattr(hang_finder, "time", clock)
    unknown = TakenStack(None, "", "it has no process")
    monkeypatch.setattr(hang_finder, "stacks_of", lambda pids, turn: dict.fromkeys(pids, unknown))
    node: Node | None = None
    with Events(folder=tmp_path) as events, EventLoop() as loop:
        node = Node(events, loop)
        yield node


def test_a_rank_that_stands_still_is_found(node: Node) -> None:
    (found,) = node.stands(2 * TIMEOUT)
    assert "it has made step 7 and reported nothing for" in found


@pytest.mark.parametrize(
    ("hold", "release"),
    [
        (["debugger_start"], ["debugger_end"]),
        (["debugger_start"], ["-debugger_start"]),
        (["pause"], ["-pause"]),
        (["paused"], ["resume"]),
    ],
)
def test_the_watch_waits_while_a_rank_is_debugged_or_paused(
    hold: list[str], release: list[str], node: Node
) -> None:
    def change(names: list[str]) -> None:
        for name in names:
            flag = getattr(node.events, name.lstrip("-"))
            flag.clear() if name.startswith("-") else flag.set()

    change(hold)
    assert node.stands(100 * TIMEOUT) == []
    change(release)
    assert node.stands(0.5 * TIMEOUT) == [], "what was held does not count"
    assert node.stands(2 * TIMEOUT)


def test_the_watch_waits_while_a_rank_is_held_in_its_step(node: Node) -> None:
    node.events.slot(0).doing = Doing.HELD
    assert node.stands(100 * TIMEOUT) == []


EXIT_TIMEOUT = 300.0  # seconds


class Ending:
    """One rank that has returned its value, and whose process does not end."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, events: Events, loop: EventLoop, timeout: HangTimeout
    ) -> None:
        self.now = 1000.0
        self.state = "S"
        """The state of its process."""
        clock = SimpleNamespace(monotonic=lambda: self.now)
        for module in (hang_finder, rank, rank_group):
            monkeypatch.setattr(module, "time", clock)
        unknown = TakenStack(None, "", "it has no process")
        monkeypatch.setattr(
            hang_finder, "stacks_of", lambda pids, _turn: dict.fromkeys(pids, unknown)
        )
        monkeypatch.setattr(exit_watch, "stat_of", self._stat_of)
        self.starter = Starter({0: Returned(b"7", pickled=False)}, (0,))
        self.group = group_of(1, self.starter, loop, exit_timeout=EXIT_TIMEOUT)
        self.finder = HangFinder(timeout, events, loop)
        self.finder.begin()
        loop.turn(0.0)  # its value has come
        self.look()

    def _stat_of(self, pid: int) -> ProcessStat:
        assert pid == NO_PROCESS
        return ProcessStat(pid, parent=1, group=pid, session=pid, state=self.state)

    def look(self) -> None:
        self.finder.look(self.group, one_node=True)

    @property
    def killed(self) -> bool:
        return self.starter.started[0].signals == [signal.SIGKILL]

    def passes(self, seconds: float) -> float:
        """Look when that is due, for so many seconds or until it is killed: how long that was."""
        began, end = self.now, self.now + seconds
        looks = 0
        while not self.killed and self.now < end:
            due = min(self.finder.next_look, self.group.next_deadline, end)
            assert due > self.now
            self.now = due
            self.look()
            looks += 1
        assert looks <= 2 + seconds / 10, "it looks too often"
        return self.now - began


@pytest.fixture(params=[AUTO, None], ids=["watched", "not watched"])
def ending(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ending]:
    with Events(folder=tmp_path) as events, EventLoop() as loop:
        it = Ending(monkeypatch, events, loop, request.param)
        yield it
        it.finder.end()
        assert it.finder.next_look == float("inf")
        monkeypatch.undo()
        it.group.stop(signal.SIGKILL, 0.0)


def test_a_rank_that_has_returned_and_does_not_end_is_killed_in_time(ending: Ending) -> None:
    assert ending.passes(1000.0) == EXIT_TIMEOUT
    assert ending.killed


@pytest.mark.parametrize("before", [0.0, 100.0, EXIT_TIMEOUT - 1.0])
def test_time_in_which_a_returned_rank_and_its_agent_stood_still_does_not_count(
    ending: Ending, before: float
) -> None:
    ending.passes(before)
    ending.now += 400.0
    ending.look()
    assert not ending.killed
    rest = ending.passes(1000.0)
    assert ending.killed
    assert 20.0 <= rest <= EXIT_TIMEOUT - before + 60.0


@pytest.mark.parametrize("state", ["T", "t"])
@pytest.mark.parametrize("before", [0.0, 100.0, EXIT_TIMEOUT - 1.0])
def test_time_in_which_a_returned_rank_is_stopped_or_traced_does_not_count(
    ending: Ending, before: float, state: str
) -> None:
    ending.passes(before)
    ending.state = state
    assert ending.passes(400.0) == 400.0
    assert not ending.killed
    ending.state = "S"
    rest = ending.passes(1000.0)
    assert ending.killed
    assert 0.0 < rest <= EXIT_TIMEOUT - before + 60.0
