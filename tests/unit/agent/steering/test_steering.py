"""A node's steering over a real page: gates, checkpoints, pauses, and an end at a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import ClassVar

import pytest

from llutil.agent.observer import TerminalObserver
from llutil.agent.steering.agreement import NoAgreement, OneNodeAgreement
from llutil.agent.steering.steering import Steering
from llutil.events.events import Events
from llutil.events.gate import Kinds
from llutil.events.rank_slot import Doing
from llutil.events.steps import Steps, Todo
from llutil.rendezvous.protocol.gate_records import WishKind

CHECKPOINT, STOP, PAUSE, RESUME, DEBUGGER_START, DEBUGGER_END, STACKS = WishKind
NOTHING = Todo()


class Observer(TerminalObserver):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str | int] = []
        self.save_times: list[float | None] = []
        self.now = "runs"

    def saved(self, step: int, seconds: float | None = None, path: str = "") -> None:
        assert not path
        self.told.append(step)
        self.save_times.append(seconds)

    def steered(self, text: str, now: str = "") -> None:
        self.told.append(text)
        self.now = now or self.now


class Remembered:
    """An agreement that only remembers what was wished."""

    def __init__(self) -> None:
        self.wishes: list[AbstractSet[WishKind]] = []
        self.checkpoints: list[tuple[int, bool]] = []

    def wish(self, kinds: AbstractSet[WishKind], why: str, *, preempted: bool = False) -> None:
        assert why
        self.wishes.append(kinds)
        self.preempted = preempted

    def checkpoint_over(self, number: int, *, saved: bool) -> None:
        self.checkpoints.append((number, saved))


class Node:
    """A node with two ranks, whose clock the test sets."""

    pids: ClassVar = {0: 100, 1: 101}

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page = Events.private()
        self.observer = Observer()
        self.ranks = [Steps(self.page.slot(rank), self.page.gate) for rank in range(2)]
        self.over: set[int] = set()
        self.asked = Remembered()
        self.now = time.monotonic()
        monkeypatch.setattr("llutil.agent.steering.steering.time.monotonic", lambda: self.now)

    def steering(self, *, saves: bool = True, alone: bool = False) -> Steering:
        """With ``alone``, all ranks of the job are on this node."""
        steering = Steering(self.page, self.observer, saves=saves, every=None)
        agreement = OneNodeAgreement(steering) if alone else self.asked
        steering.begin(agreement, self, first_node=True)
        return steering

    def look(self, steering: Steering) -> None:
        self.now += 1.0
        steering.look()

    def step(self, number: int) -> list[Todo]:
        return [rank.step(number, 0) for rank in self.ranks]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


def test_what_is_asked_for_before_the_first_step_waits_for_it(node: Node) -> None:
    steering = node.steering()
    node.page.trigger_save_checkpoint.set()
    node.look(steering)
    assert not node.asked.wishes
    assert node.page.trigger_save_checkpoint.is_set()
    node.step(1)
    node.look(steering)
    assert node.asked.wishes == [{CHECKPOINT}]


def test_a_checkpoint_on_one_node_is_saved_at_the_next_step_and_told(node: Node) -> None:
    steering = node.steering(alone=True)
    node.step(6)
    node.page.trigger_save_checkpoint.set()
    node.look(steering)
    assert node.step(7) == [Todo(checkpoint=True)] * 2
    node.look(steering)
    assert not node.page.finished_save_checkpoint.is_set()
    for rank in node.ranks:
        rank.saved(7)
    node.look(steering)
    assert node.page.finished_save_checkpoint.is_set()
    assert node.observer.told == [7]


def test_a_checkpoint_is_told_with_the_time_that_it_took_if_that_was_seen(node: Node) -> None:
    steering = node.steering(alone=True)
    for step, looks in ((7, 0), (9, 3)):
        node.step(step)
        for rank in node.ranks:
            rank.saving()
        for _ in range(looks):
            node.look(steering)
        for rank in node.ranks:
            rank.saved(step)
            rank.left()
        node.look(steering)
    assert node.observer.told == [7, 9]
    assert node.observer.save_times == [None, 3.0]


def test_a_checkpoint_that_no_rank_saves_raises_no_flag_and_is_told(node: Node) -> None:
    steering = node.steering(alone=True)
    node.step(6)
    node.page.trigger_save_checkpoint.set()
    node.look(steering)
    node.step(7)
    node.step(8)
    node.over = {0, 1}
    node.look(steering)
    assert not node.page.finished_save_checkpoint.is_set()
    assert node.observer.told == ["the ranks of this node did not save after step 7"]


def test_the_ledgers_numbers_may_have_gaps(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    assert steering.raise_gate(3, frozenset({STOP}), 10.0) == (2, "")
    steering.open_gate(3, frozenset(), None, 0, "a node did not answer", debugged=False)
    assert node.step(2) == [NOTHING] * 2
    assert steering.raise_gate(7, frozenset({STOP}), 10.0) == (3, "")
    steering.open_gate(7, frozenset({STOP}), 5, 0, "somebody asked", debugged=False)
    assert node.step(4) == [NOTHING] * 2
    assert steering.stopped is None
    assert node.step(5) == [Todo(stop=True)] * 2
    assert steering.stopped is not None
    assert (steering.stopped.step, steering.stopped.why) == (5, "somebody asked")
    assert node.page.stop_all_tasks.is_set()


def test_a_checkpoint_that_a_leader_may_wait_for_is_looked_for_often(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    assert steering.next_look - node.now > 0.2
    steering.raise_gate(4, frozenset({CHECKPOINT}), 10.0)
    steering.open_gate(4, frozenset({CHECKPOINT}), 2, 0, "", debugged=False)
    assert steering.next_look - node.now < 0.05
    node.look(steering)
    assert steering.next_look - node.now < 0.05
    node.step(2)
    for rank in node.ranks:
        rank.saved(2)
    node.look(steering)
    assert steering.next_look - node.now > 0.2


def test_the_leader_hears_of_a_checkpoint_once_all_ranks_are_done_with_it(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    steering.raise_gate(4, frozenset({CHECKPOINT}), 10.0)
    steering.open_gate(4, frozenset({CHECKPOINT}), 2, 0, "", debugged=False)
    node.step(2)
    node.ranks[0].saved(2)
    node.look(steering)
    assert node.asked.checkpoints == []
    node.ranks[1].saved(2)
    node.look(steering)
    assert node.asked.checkpoints == [(4, True)]


def test_a_pause_is_told_once_all_ranks_are_held_and_ended_by_a_resume(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    steering.raise_gate(1, frozenset({PAUSE}), 10.0)
    steering.open_gate(1, frozenset({PAUSE}), 2, 0, "lunch", debugged=False)
    slots = [node.page.slot(rank) for rank in range(2)]
    slots[0].doing = Doing.HELD
    node.look(steering)
    assert not node.page.paused.is_set()
    slots[1].doing = Doing.HELD
    node.look(steering)
    assert node.page.paused.is_set()
    assert node.observer.told == [node.observer.now] == ["paused after step 2: lunch"]
    node.page.resume.set()
    node.look(steering)
    assert node.asked.wishes == [{RESUME}]
    steering.open_gate(2, frozenset(), None, 2, "back", debugged=False)
    flags = (node.page.pause, node.page.paused, node.page.resume)
    assert not any(flag.is_set() for flag in flags)
    assert node.page.gate.ends_pause(1)
    assert node.observer.now == "runs"


def test_a_resume_that_overtakes_the_pause_ends_it(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    node.page.pause.set()
    node.look(steering)
    node.page.resume.set()
    node.look(steering)
    assert node.asked.wishes == [{PAUSE}, {RESUME}]
    steering.open_gate(1, frozenset(), None, 1, "resume was raised", debugged=False)
    node.look(steering)
    assert node.asked.wishes == [{PAUSE}, {RESUME}]
    assert not node.page.pause.is_set()


def test_a_rendezvous_that_carries_nothing_says_which_do(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    steering = node.steering()
    steering.begin(NoAgreement(steering, "c10d"), node, first_node=True)
    node.step(1)
    node.page.stop_all_tasks.set()
    node.look(steering)
    assert "nothing comes of the wish to save a checkpoint and stop" in caplog.text
    assert "c10d" in caplog.text
    assert "served" in caplog.text


# The platform takes the node away.


def test_a_node_whose_ranks_call_no_step_gets_the_signal_at_once(node: Node) -> None:
    steering = node.steering()
    assert not steering.ends_in_order("got SIGTERM", 10.0)
    assert not node.asked.wishes


def test_a_node_that_ends_wishes_a_checkpoint_and_its_own_ranks_stop_there(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    assert node.asked.wishes == [{CHECKPOINT}]
    assert node.asked.preempted
    steering.raise_gate(1, frozenset({CHECKPOINT}), 10.0)
    steering.open_gate(1, frozenset({CHECKPOINT}), 3, 0, "got SIGTERM", debugged=False)
    node.step(2)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    assert not steering.was_told_to_end
    assert node.step(3) == [Todo(checkpoint=True, stop=True)] * 2
    for rank in node.ranks:
        rank.saved(3)
    assert steering.was_told_to_end
    assert steering.stopped is None  # nobody asked the job to stop
    assert not node.page.stop_all_tasks.is_set()


def test_a_rank_that_stops_without_saving_was_told_to_end_too(node: Node) -> None:
    steering = node.steering(alone=True)
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    assert node.step(2) == [Todo(checkpoint=True, stop=True)] * 2
    node.over = {0, 1}
    assert steering.was_told_to_end


def test_a_later_decision_does_not_hide_the_one_at_which_ranks_stopped(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    for number in (1, 2):  # the second is another node's wish
        steering.raise_gate(number, frozenset({CHECKPOINT}), 10.0)
        steering.open_gate(
            number, frozenset({CHECKPOINT}), 1 + number, 0, "got SIGTERM", debugged=False
        )
        if number == 1:
            node.step(2)
            for rank in node.ranks:
                rank.saved(2)
    assert steering.was_told_to_end


def test_ranks_of_the_other_nodes_wait_for_the_end_of_their_round_but_not_for_ever(
    node: Node,
) -> None:
    steering = node.steering()
    node.step(1)
    steering.raise_gate(3, frozenset({CHECKPOINT}), 10.0)
    steering.open_gate(
        3, frozenset({CHECKPOINT}), 2, 0, "a node has to go", ends_within=90, debugged=False
    )
    decided = node.page.gate.decision(1)
    assert decided is not None
    assert decided.kinds == Kinds.CHECKPOINT | Kinds.PAUSE
    node.look(steering)
    assert not node.page.pause.is_set()
    assert not node.page.gate.ends_pause(1)
    node.now += 90
    node.look(steering)
    assert node.page.gate.ends_pause(1)


def test_nor_do_they_wait_once_nobody_can_end_their_round(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    steering.raise_gate(3, frozenset({CHECKPOINT}), 10.0)
    steering.open_gate(
        3, frozenset({CHECKPOINT}), 2, 0, "node 0 has to go", ends_within=90, debugged=False
    )
    assert not node.page.gate.ends_pause(1)
    steering.open_gate(3, frozenset(), None, 4, "the ledger has gone for good", debugged=False)
    assert node.page.gate.ends_pause(1)


def test_without_a_place_for_checkpoints_it_stops_at_its_own_next_step(node: Node) -> None:
    steering = node.steering(saves=False)
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    assert not node.asked.wishes
    assert node.step(2) == [Todo(stop=True)] * 2


@pytest.mark.parametrize(
    "nothing_comes",
    [
        lambda steering: steering.refuse(frozenset({CHECKPOINT}), "the ledger is away"),
        lambda steering: (
            steering.raise_gate(1, frozenset({CHECKPOINT}), 10.0),
            steering.open_gate(1, frozenset(), None, 0, "a node did not answer", debugged=False),
        ),
    ],
    ids=["refused", "cancelled"],
)
def test_without_an_agreement_its_ranks_stop_alone(
    node: Node, nothing_comes: Callable[[Steering], object]
) -> None:
    steering = node.steering()
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    nothing_comes(steering)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    assert node.step(2) == [Todo(stop=True)] * 2


def test_half_of_the_time_is_for_the_agreement(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    node.now += 4.9
    assert steering.ends_in_order("got SIGTERM", 10.0)
    assert node.step(2) == [NOTHING] * 2
    node.now += 0.2
    assert steering.ends_in_order("got SIGTERM", 10.0)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    assert node.step(3) == [Todo(stop=True)] * 2


def test_ranks_that_do_not_come_to_the_step_in_time_get_the_signal(node: Node) -> None:
    steering = node.steering(saves=False)
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    node.now += 9.9
    assert steering.ends_in_order("got SIGTERM", 10.0)
    node.now += 0.2
    assert not steering.ends_in_order("got SIGTERM", 10.0)


def test_ranks_that_go_on_in_spite_of_it_get_the_signal(node: Node) -> None:
    steering = node.steering(saves=False)
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    node.step(2)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    node.step(3)
    assert not steering.ends_in_order("got SIGTERM", 10.0)


def test_a_stop_of_the_job_is_one_of_a_node_that_ends(node: Node) -> None:
    steering = node.steering()
    node.step(1)
    assert steering.ends_in_order("got SIGTERM", 10.0)
    steering.raise_gate(1, frozenset({STOP}), 10.0)
    steering.open_gate(1, frozenset({STOP}), 2, 0, "somebody asked", debugged=False)
    assert node.step(2) == [Todo(stop=True)] * 2
    assert steering.was_told_to_end


def test_the_kinds_of_the_ledger_that_need_a_step_are_those_of_the_page() -> None:
    assert {kind.name for kind in Kinds if kind} == {
        kind.name for kind in WishKind if kind.needs_step
    }


def test_all_nodes_know_that_a_rank_is_debugged_and_when_that_is_over(node: Node) -> None:
    steering = node.steering()
    node.page.slot(1).doing = Doing.DEBUGGED
    node.look(steering)
    node.look(steering)
    assert node.asked.wishes == [{DEBUGGER_START}]
    steering.open_gate(1, frozenset(), None, 0, "local rank 1 is debugged", debugged=True)
    node.look(steering)
    node.page.slot(1).doing = Doing.STEPS
    node.look(steering)
    node.look(steering)
    assert node.asked.wishes == [{DEBUGGER_START}, {DEBUGGER_END}]
    steering.open_gate(2, frozenset(), None, 0, "no rank is debugged any more", debugged=False)
    node.page.slot(0).doing = Doing.DEBUGGED
    node.look(steering)
    assert node.asked.wishes[2:] == [{DEBUGGER_START}]


def test_a_node_says_again_that_a_rank_is_debugged_when_another_nodes_debugger_has_ended(
    node: Node,
) -> None:
    steering = node.steering()
    node.page.slot(0).doing = Doing.DEBUGGED
    node.look(steering)
    steering.open_gate(1, frozenset(), None, 0, "", debugged=True)
    steering.open_gate(2, frozenset(), None, 0, "that of another node", debugged=False)
    node.look(steering)
    assert node.asked.wishes == [{DEBUGGER_START}] * 2


def test_the_flags_of_a_node_say_that_a_rank_of_another_one_is_debugged(node: Node) -> None:
    steering = node.steering()
    steering.open_gate(1, frozenset(), None, 0, "rank 5", debugged=True)
    assert node.page.debugged
    node.look(steering)
    assert not node.asked.wishes
    steering.open_gate(2, frozenset(), None, 0, "rank 5", debugged=False)
    assert not node.page.debugged


def test_a_debugger_that_others_cannot_hear_of_is_told_once_and_asks_on(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    steering = node.steering()
    steering.begin(NoAgreement(steering, "c10d"), node, first_node=True)
    node.page.slot(0).doing = Doing.DEBUGGED
    for _ in range(200):
        node.look(steering)
    (told,) = node.observer.told
    assert str(told).startswith("nothing comes of the wish to have the watchdogs of all nodes wait")
    steering.begin(node.asked, node, first_node=True)
    node.look(steering)
    assert node.asked.wishes == [{DEBUGGER_START}]


def test_a_rank_that_was_killed_at_its_prompt_is_debugged_no_more(node: Node) -> None:
    steering = node.steering()
    node.page.slot(0).doing = Doing.DEBUGGED
    node.look(steering)
    steering.open_gate(1, frozenset(), None, 0, "", debugged=True)
    node.over = {0}
    node.look(steering)
    assert node.asked.wishes == [{DEBUGGER_START}, {DEBUGGER_END}]


def test_stacks_are_wanted_at_once_also_of_ranks_that_call_no_step(node: Node) -> None:
    steering = node.steering(alone=True)
    node.page.show_stacks.set()
    node.look(steering)
    assert steering.stacks.take() == "show_stacks was raised"
    node.look(steering)
    assert not steering.stacks.take()
    node.page.show_stacks.set()
    node.look(steering)
    assert steering.stacks.take()


def test_stacks_that_another_node_wants_are_wanted_here_once(node: Node) -> None:
    steering = node.steering()
    steering.open_gate(2, frozenset(), None, 0, "somebody asks", debugged=False, stacks=2)
    assert steering.stacks.take() == "somebody asks"
    steering.open_gate(3, frozenset(), None, 0, "a resume", debugged=False, stacks=2)
    assert not steering.stacks.take()
    steering.begin(node.asked, node, first_node=True)
    steering.open_gate(1, frozenset(), None, 0, "in the next round", debugged=False, stacks=1)
    assert steering.stacks.take() == "in the next round"


def test_stacks_that_cannot_be_asked_of_other_nodes_are_refused_once(node: Node) -> None:
    steering = node.steering()
    steering.begin(NoAgreement(steering, "c10d"), node, first_node=True)
    node.page.show_stacks.set()
    for _ in range(3):
        node.look(steering)
    (told,) = node.observer.told
    assert str(told).startswith("nothing comes of the wish to show the stacks of all ranks: ")
