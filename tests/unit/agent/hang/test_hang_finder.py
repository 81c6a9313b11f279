"""A rank whose step stands still is no hang while somebody holds the ranks of its node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.hang import hang_finder
from llutil.agent.hang.hang_finder import HangFinder
from llutil.agent.hang.take_stacks import TakenStack
from llutil.events.events import Events
from llutil.events.rank_slot import Doing

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
        self.ranks: Any = SimpleNamespace(overdue=[], running=[rank])
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
