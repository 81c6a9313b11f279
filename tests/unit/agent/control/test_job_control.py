"""What an agent answers to people, and what their orders do to its page."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from llutil.agent.control.job_control import JobControl, JobFacts
from llutil.agent.control.job_observer import JobObserver
from llutil.agent.observer import TerminalObserver
from llutil.agent.steering.steering import Steering
from llutil.agent_socket.messages import JobStatus, Order, Request, State
from llutil.events.events import Events
from llutil.events.rank_slot import Doing

FACTS = JobFacts(
    run_id="run",
    entrypoint="train.py",
    label="here",
    max_restarts=3,
    checkpoint_folder="/checkpoints/run",
    log_folder="/logs",
)


class Node:
    """One node's parts, without workers."""

    def __init__(self) -> None:
        self.events = Events()
        self.observer = JobObserver(TerminalObserver())
        self.signals: Any = SimpleNamespace(caught=None)
        self.steering = Steering(self.events, self.observer, saves=True, every=None)
        self.group: Any = SimpleNamespace(group_rank=None, group_world_size=None, workers=[])
        self.members: tuple[int, tuple[str, ...]] = (0, ())
        self.control = JobControl(
            FACTS,
            lambda: self.group,
            self.steering,
            self.observer,
            self.signals,
            self.events,
            lambda: self.members,
        )

    def begin(self, *pids: int) -> None:
        """A round with a rank for each of ``pids``, at the second of two nodes."""
        count = len(pids)
        ranks = tuple(range(count, 2 * count))
        self.group.group_rank, self.group.group_world_size = 1, 2
        self.group.workers = [
            SimpleNamespace(global_rank=rank, local_rank=local, id=pid)
            for local, (rank, pid) in enumerate(zip(ranks, pids, strict=True))
        ]
        self.observer.round(1, 2 * count, ranks)

    def status(self, do: Order = Order.STATUS, why: str = "") -> JobStatus:
        answer = self.control.answer(Request(do=do, why=why), "process 1")
        assert answer.status is not None
        return answer.status


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.events.close()


def test_before_its_first_round_a_node_waits(node: Node) -> None:
    status = node.status()
    assert (status.state, status.node, status.nodes, status.ranks) == (State.WAITS, None, 0, ())
    assert (status.run_id, status.pid, status.label) == ("run", os.getpid(), "here")
    assert status.checkpoint_folder == "/checkpoints/run"


def test_the_ranks_of_a_round_are_told_one_by_one(node: Node) -> None:
    node.begin(101, 102)
    node.events.slot(0).report(5, 10)
    node.events.slot(0).heartbeat = time.monotonic_ns() - 3 * 10**9
    node.events.slot(1).report(4, 12)
    node.observer.progress({2: (3, 10), 3: (4, 10)}, {"loss": 0.5})
    status = node.status()
    assert (status.state, status.node, status.nodes, status.world_size) == (State.RUNS, 1, 2, 4)
    assert (status.restarts, status.max_restarts, status.step, status.total) == (1, 3, 4, 12)
    assert status.metrics == {"loss": 0.5}
    first, second = status.ranks
    assert (first.rank, first.local_rank, first.pid, first.step) == (2, 0, 101, 5)
    assert first.silent is not None
    assert 3.0 <= first.silent < 60.0
    assert (second.rank, second.pid, second.step, second.total) == (3, 102, 4, 12)


def test_a_round_is_told_with_its_nodes_and_what_its_ranks_resumed_from(node: Node) -> None:
    assert (node.status().round, node.status().members) == (None, ())
    node.begin(101)
    node.members = 4, ("a", "b" * 10_000)
    node.events.resumed_from = 0
    status = node.status()
    assert (status.round, status.members, status.resumed_from) == (4, ("a", "b" * 200), 0)


def test_one_node_alone_knows_who_is_in_its_round(node: Node) -> None:
    node.begin(101)
    assert node.status().members == ()
    node.group.group_world_size = 1
    assert node.status().members == ("here",)


def test_a_rank_that_has_reported_nothing_has_no_step(node: Node) -> None:
    node.begin(101, 102)
    node.events.slot(0).report(5, 10)
    status = node.status()
    assert (status.step, status.total) == (5, 10)
    assert (status.ranks[1].step, status.ranks[1].silent) == (None, None)


def test_after_a_round_its_ranks_are_not_told(node: Node) -> None:
    node.begin(101)
    node.events.slot(0).report(5, 10)
    node.observer.progress({1: (5, 10)}, {"loss": 0.5})
    node.observer.round(1, 0, ())
    status = node.status()
    assert (status.state, status.ranks, status.step, status.metrics) == (State.WAITS, (), None, {})


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ("pause", State.PAUSES),
        ("pause paused", State.PAUSED),
        ("stop_all_tasks", State.STOPS),
        ("stop_all_tasks pause paused", State.STOPS),
        ("debugger_start", State.DEBUGGED),
    ],
)
def test_the_state_is_what_the_flags_say(node: Node, flags: str, state: State) -> None:
    node.begin(101)
    for flag in flags.split():
        getattr(node.events, flag).set()
    assert node.status().state is state


def test_a_node_saves_while_one_rank_does(node: Node) -> None:
    node.begin(101, 102)
    node.events.slot(1).doing = Doing.CHECKPOINT
    status = node.status()
    assert status.state is State.SAVES
    assert [rank.doing for rank in status.ranks] == ["steps", "checkpoint"]


def test_a_signal_comes_before_all_else(node: Node) -> None:
    node.signals.caught = signal.SIGTERM
    assert node.status().state is State.ENDS


@pytest.mark.parametrize(
    ("order", "flag"),
    [
        (Order.PAUSE, "pause"),
        (Order.RESUME, "resume"),
        (Order.CHECKPOINT, "trigger_save_checkpoint"),
        (Order.STOP, "stop_all_tasks"),
    ],
)
def test_an_order_raises_its_flag_alone_and_is_logged(
    node: Node, order: Order, flag: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        node.status(order, "good\nenough")
    names = ("pause", "resume", "stop_all_tasks", "trigger_save_checkpoint")
    assert [name for name in names if getattr(node.events, name).is_set()] == [flag]
    assert f"asked by process 1: llutil {order}: good\\x0aenough" in caplog.text


def test_a_question_raises_no_flag_and_is_not_logged(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        node.status()
    assert not caplog.records


def test_an_order_for_a_checkpoint_forgets_what_became_of_the_last_one(node: Node) -> None:
    node.events.finished_save_checkpoint.set()
    assert node.status().has_saved
    assert not node.status(Order.CHECKPOINT).has_saved
