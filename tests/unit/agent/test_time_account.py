"""Where the time of a job went, as its ranks' slots tell it."""

from __future__ import annotations

import pytest

from llutil.agent.time_account import TimeAccount
from llutil.events.events import Events
from llutil.events.rank_slot import Doing


class Node:
    """A node with two ranks, whose clock the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.account = TimeAccount(lambda: self.now)
        self.page = Events.private()
        self.slots = [self.page.slot(rank) for rank in range(2)]

    def passes(self, seconds: float, step: int | None = None, every: float = 0.25) -> None:
        """Time passes while the ranks come from their step to ``step``."""
        looks = round(seconds / every)
        first = self.slots[0].step
        for look in range(1, looks + 1):
            self.now += every
            for slot in self.slots:
                if step is not None:
                    slot.report(first + (step - first) * look // looks)
            self.account.look(self.slots)

    def restart(self, after: float) -> None:
        """The round ends, and another one begins some time later."""
        self.account.end_round()
        self.page.reset_slots()
        self.now += after
        self.account.begin_round()

    def told(self) -> str:
        self.account.end()
        return self.account.told


@pytest.fixture
def node() -> Node:
    node = Node()
    node.now += 10.0
    node.account.begin_round()
    return node


def test_time_before_the_first_report_is_no_training(node: Node) -> None:
    node.passes(20.0)
    node.passes(170.0, step=100)
    assert node.told() == "3 min 20 s, 85 % training (starting 30 s)"


def test_steps_that_are_done_again_and_the_way_back_to_them_are_what_a_restart_costs(
    node: Node,
) -> None:
    node.passes(100.0, step=100)
    node.restart(15.0)
    node.passes(5.0)
    node.slots[0].step = 60
    node.passes(50.0, step=110)
    told = node.told()
    assert told.startswith("3 min, 61 % training, 1 restart cost 1 min")
    assert "steps done again 39 s, starting 30 s" in told


def test_a_restart_without_a_lost_step_costs_the_time_between(node: Node) -> None:
    node.passes(80.0, step=100)
    node.restart(10.0)
    node.slots[0].step = 100
    node.passes(100.0, step=200)
    assert node.told() == "3 min 20 s, 90 % training, 1 restart cost 10 s (starting 20 s)"


def test_what_was_done_twice_is_lost_once_however_often_ranks_fail(node: Node) -> None:
    for _ in range(3):
        node.passes(30.0, step=30)
        node.restart(0.0)
    node.passes(30.0, step=30)
    assert "steps done again 1 min 28 s" in node.told()


def test_saves_pauses_and_debugging_are_told_apart_from_training(node: Node) -> None:
    node.passes(50.0, step=50)
    node.slots[1].doing = Doing.CHECKPOINT
    node.passes(20.0)
    for doing in (Doing.HELD, Doing.DEBUGGED):
        node.slots[1].doing = doing
        node.passes(10.0)
    node.slots[1].doing = Doing.STEPS
    node.passes(0.5)
    told = node.told()
    assert "saving 20 s" in told
    assert "pauses 20 s" in told
    assert told.startswith("1 min 40 s, 5")


def test_ranks_that_report_no_step_are_not_said_to_train(node: Node) -> None:
    node.passes(100.0)
    node.restart(10.0)
    assert node.told() == "2 min, 1 restart"


def test_a_job_that_never_began_has_its_length() -> None:
    node = Node()
    node.now += 4.0
    assert node.told() == "4 s"


def test_a_week_of_steps_needs_no_more_memory_than_an_hour(node: Node) -> None:
    node.passes(7 * 86400.0, step=10**7, every=30.0)
    assert len(node.account._marks) <= 512
    node.restart(0.0)
    node.slots[0].step = 5 * 10**6
    node.passes(30.0, step=5 * 10**6 + 1)
    assert "steps done again 3 d 1" in node.told()


def test_an_account_is_told_in_numbers_too(node: Node) -> None:
    node.passes(90.0, step=100)
    node.restart(after=0.0)
    node.told()
    assert (node.account.seconds, node.account.restarts) == (100.0, 1)
    assert TimeAccount(lambda: 0.0).restarts == 0
