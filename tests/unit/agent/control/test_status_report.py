"""When a node's status is told: soon after a change, now and then, and never at the job's cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from llutil.agent.control import status_report
from llutil.agent.control.status_report import PERIOD, SIGN_OF_LIFE, StatusReport
from llutil.agent.event_loop import EventLoop
from llutil.agent_socket.messages import JobStatus, RankStatus, State

RANK = RankStatus(rank=0, local_rank=0, pid=1, step=1, total=0, doing="steps", silent=0.1)
STATUS = JobStatus(
    run_id="r",
    pid=1,
    host="h",
    entrypoint="e",
    state=State.RUNS,
    nodes=1,
    world_size=1,
    restarts=0,
    max_restarts=0,
    seconds=1.0,
    ranks=(RANK,),
)


class Node:
    """A node whose clock and status the test sets."""

    def __init__(self, loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop, self.now, self.status = loop, 0.0, STATUS
        self.told: list[JobStatus] = []
        self.looks: list[Any] = []
        monkeypatch.setattr(loop, "repeat", lambda _, look: self.looks.append(look))
        self.report = StatusReport(self._status, self.told.append, loop, lambda: self.now)

    def _status(self) -> JobStatus:
        return self.status

    def passes(self, seconds: float) -> None:
        """Time passes, in which the loop looks as often as it is asked to."""
        for _ in range(round(seconds / PERIOD)):
            self.now += PERIOD
            rank = replace(RANK, step=self.status.ranks[0].step, silent=self.now)
            self.status = replace(self.status, seconds=self.now, ranks=(rank,))
            self.looks[0]()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with EventLoop() as loop:
        yield Node(loop, monkeypatch)


def test_a_change_is_told_and_time_alone_is_none(node: Node) -> None:
    node.passes(PERIOD)
    assert len(node.told) == 1
    node.passes(SIGN_OF_LIFE - PERIOD)
    assert len(node.told) == 1
    node.status = replace(node.status, ranks=(replace(RANK, step=2),))
    node.passes(PERIOD)
    assert [one.ranks[0].step for one in node.told] == [1, 2]


def test_a_node_that_does_nothing_new_says_now_and_then_that_it_lives(node: Node) -> None:
    node.passes(10 * SIGN_OF_LIFE)
    assert len(node.told) == 10
    assert node.told[-1].seconds > 9 * SIGN_OF_LIFE


def test_what_has_just_changed_is_told_in_the_next_turn_and_once(node: Node) -> None:
    node.report.soon()
    node.report.soon()
    assert node.told == []
    node.loop.turn(time.monotonic())
    assert node.told == [STATUS]


def test_after_its_end_nothing_is_told(node: Node) -> None:
    node.report.soon()
    node.report.close()
    node.loop.turn(time.monotonic())
    node.passes(PERIOD)
    assert node.told == []


def test_a_status_that_cannot_be_made_costs_the_job_a_line(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> JobStatus:
        raise ZeroDivisionError

    monkeypatch.setattr(node.report, "_status", fail)
    for _ in range(3):
        node.passes(PERIOD)
    assert len(caplog.records) == 1
    assert "this node's status is told no more" in caplog.text
    assert status_report.PERIOD < SIGN_OF_LIFE
