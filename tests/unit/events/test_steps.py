"""A rank that finishes steps, and an agent that raises and opens gates; the rank is a thread."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from llutil.events.events import Events
from llutil.events.gate import LONGEST_STEP, Gate, Kinds
from llutil.events.page_file import start_time
from llutil.events.rank_slot import Doing
from llutil.events.steps import LoneSteps, Steps, Todo

SOON = 30.0
NOTHING, SAVE, END = Todo(), Todo(checkpoint=True), Todo(stop=True)


class Rank:
    """A rank that finishes a step when a test says so."""

    def __init__(self, page: Events, number: int, every: int = 0) -> None:
        self.slot = page.slot(number)
        self.steps = Steps(self.slot, page.gate, every)
        self._thread = ThreadPoolExecutor(1)

    def begin(self, step: int) -> Future[Todo]:
        return self._thread.submit(self.steps.step, step, 0)

    def step(self, step: int) -> Todo:
        return self.begin(step).result(SOON)

    def held(self, step: int) -> Future[Todo]:
        """The rank waits after this step."""
        begun = self.begin(step)
        until(lambda: self.slot.doing == Doing.HELD and self.slot.step == step)
        assert not begun.done()
        return begun

    def run(self, call: Callable[[], None]) -> Future[None]:
        return self._thread.submit(call)

    def end(self) -> None:
        self._thread.shutdown()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Events]:
    monkeypatch.setattr("llutil.events.gate._LONGEST_SLEEP", 0.01)
    events = Events.private()
    yield events
    events.close()


@pytest.fixture
def ranks(page: Events) -> Iterator[list[Rank]]:
    made = [Rank(page, number) for number in range(2)]
    yield made
    page.gate.words[8] = 0  # nobody is held any more, whatever a test left
    page.gate.reset()
    for rank in made:
        rank.end()


@pytest.fixture
def rank(ranks: list[Rank]) -> Rank:
    return ranks[0]


def later() -> float:
    return time.monotonic() + SOON


def until(condition: Callable[[], bool]) -> None:
    deadline = later()
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)  # without Python's lock, which the ranks need


def raise_and_open(gate: Gate, number: int, step: int, kinds: Kinds) -> None:
    assert not gate.raise_gate(number, later()).refusal
    assert gate.open_gate(number, step, kinds)


def test_where_nothing_is_asked_for_a_step_is_progress_alone(page: Events, rank: Rank) -> None:
    assert [rank.step(step) for step in (0, 1, 1, 7)] == [NOTHING] * 4
    assert page.progress() == {0: (7, 0)}
    assert rank.slot.heartbeat > 0


def test_an_agent_learns_what_each_rank_has_begun(page: Events, ranks: list[Rank]) -> None:
    ranks[0].step(3)
    page.slot(5).report(9)
    raised = page.gate.raise_gate(1, later())
    assert raised.begun == {0: 4, 5: None}
    assert raised.furthest == 4


def test_without_a_rank_that_calls_step_there_is_no_furthest(page: Events) -> None:
    page.slot(5).report(9)
    assert page.gate.raise_gate(1, later()).furthest is None


def test_ranks_that_are_a_step_apart_do_it_after_the_same_step(
    page: Events, ranks: list[Rank]
) -> None:
    ahead, behind = ranks
    ahead.step(3)
    behind.step(2)
    assert page.gate.raise_gate(1, later()).furthest == 4
    early, late = ahead.held(4), behind.held(3)
    assert page.gate.open_gate(1, 4, Kinds.CHECKPOINT)
    assert early.result(SOON) == SAVE
    assert late.result(SOON) == NOTHING
    assert behind.step(4) == SAVE
    assert [rank.step(5) for rank in ranks] == [NOTHING] * 2


def test_a_rank_that_is_held_has_not_begun_the_next_step(page: Events, rank: Rank) -> None:
    rank.step(1)
    raise_and_open(page.gate, 1, 2, Kinds.PAUSE)
    held = rank.held(2)
    assert page.gate.raise_gate(2, later()).furthest == 2
    page.gate.open_gate(2, 2, Kinds.CHECKPOINT)
    assert held.result(SOON) == SAVE


def test_a_gate_that_is_opened_without_a_wish_lets_ranks_go_on(page: Events, rank: Rank) -> None:
    for number, step in enumerate((None, 5, 9), 1):
        page.gate.raise_gate(number, later())
        held = rank.held(number)
        page.gate.open_gate(number, step, Kinds.NOTHING)
        assert held.result(SOON) == NOTHING
    assert rank.step(9) == NOTHING


def test_several_wishes_are_done_at_one_step_and_stop_stays(page: Events, rank: Rank) -> None:
    rank.step(1)
    raise_and_open(page.gate, 1, 2, Kinds.CHECKPOINT)
    raise_and_open(page.gate, 2, 2, Kinds.STOP)
    assert rank.step(2) == Todo(checkpoint=True, stop=True)
    assert rank.step(3) == END


def test_a_later_gate_is_raised_while_an_earlier_one_is_not_done(page: Events, rank: Rank) -> None:
    rank.step(1)
    raise_and_open(page.gate, 1, 5, Kinds.CHECKPOINT)
    assert rank.step(2) == NOTHING
    page.gate.raise_gate(2, later())
    held = rank.held(3)
    page.gate.open_gate(2, 6, Kinds.STOP)
    assert held.result(SOON) == NOTHING
    assert [rank.step(step) for step in (4, 5, 6)] == [NOTHING, SAVE, END]


def test_what_a_rank_has_done_is_told_when_its_checkpoint_is_over(page: Events, rank: Rank) -> None:
    rank.step(1)
    raise_and_open(page.gate, 1, 2, Kinds.CHECKPOINT)
    rank.step(2)
    assert rank.slot.gate == 0
    rank.steps.saving()
    assert rank.slot.doing == Doing.CHECKPOINT
    rank.steps.saved(2)
    rank.steps.left()
    assert (rank.slot.gate, rank.slot.saved, rank.slot.doing) == (1, 3, Doing.STEPS)


def test_a_rank_that_does_not_save_is_done_at_its_next_step(page: Events, rank: Rank) -> None:
    rank.step(1)
    raise_and_open(page.gate, 1, 2, Kinds.CHECKPOINT)
    rank.step(2)
    rank.step(3)
    assert (rank.slot.gate, rank.slot.saved) == (1, 0)


def test_a_pause_holds_until_it_is_ended_and_only_pauses_before_that(
    page: Events, ranks: list[Rank]
) -> None:
    for one in ranks:
        one.step(1)
    raise_and_open(page.gate, 1, 2, Kinds.PAUSE)
    held = ranks[0].held(2)
    page.gate.end_pauses(1)
    assert not held.done()
    page.gate.end_pauses(2)
    assert held.result(SOON) == NOTHING
    assert ranks[1].step(2) == NOTHING  # it comes late to a pause that is over
    raise_and_open(page.gate, 2, 3, Kinds.PAUSE)
    held = ranks[0].held(3)
    page.gate.end_pauses(3)
    assert held.result(SOON) == NOTHING


def leave_checkpoint(rank: Rank, saved: int | None) -> Future[None]:
    rank.steps.saving()
    rank.steps.saved(saved)
    return rank.run(rank.steps.left)


def test_a_pause_with_a_checkpoint_holds_at_the_end_of_the_save(page: Events, rank: Rank) -> None:
    rank.step(6)
    raise_and_open(page.gate, 1, 7, Kinds.CHECKPOINT | Kinds.PAUSE)
    assert rank.step(7) == SAVE
    left = leave_checkpoint(rank, 7)
    until(lambda: rank.slot.doing == Doing.HELD)
    assert not left.done()
    page.gate.end_pauses(2)
    left.result(SOON)
    assert rank.step(8) == NOTHING


def test_what_is_asked_for_meanwhile_ends_that_wait(page: Events, rank: Rank) -> None:
    rank.step(6)
    raise_and_open(page.gate, 1, 7, Kinds.CHECKPOINT | Kinds.PAUSE)
    rank.step(7)
    left = leave_checkpoint(rank, 7)
    until(lambda: rank.slot.doing == Doing.HELD)
    raised = page.gate.raise_gate(2, later())
    assert raised.furthest == 8
    assert not left.done()
    page.gate.open_gate(2, 8, Kinds.STOP)
    left.result(SOON)
    assert rank.step(8) == END


def test_a_save_that_failed_is_not_followed_by_a_wait(page: Events, rank: Rank) -> None:
    rank.step(6)
    raise_and_open(page.gate, 1, 7, Kinds.CHECKPOINT | Kinds.PAUSE)
    rank.step(7)
    leave_checkpoint(rank, None).result(SOON)


def test_a_stop_ends_a_pause_also_if_it_is_for_a_later_step(page: Events, rank: Rank) -> None:
    rank.step(1)
    raise_and_open(page.gate, 1, 2, Kinds.PAUSE)
    held = rank.held(2)
    raise_and_open(page.gate, 2, 3, Kinds.STOP)
    assert held.result(SOON) == NOTHING
    assert rank.step(3) == END


def test_a_rank_that_comes_too_late_does_nothing_and_says_so(
    page: Events, rank: Rank, caplog: pytest.LogCaptureFixture
) -> None:
    raise_and_open(page.gate, 1, 3, Kinds.CHECKPOINT)
    assert rank.step(5) == NOTHING
    assert "CHECKPOINT was asked for after step 3, which this rank had left" in caplog.text


def test_a_gate_is_refused_while_a_rank_has_not_done_what_eight_gates_asked(
    page: Events, ranks: list[Rank]
) -> None:
    for one in ranks:
        one.step(1)
    for number in range(1, 9):
        raise_and_open(page.gate, number, 50 + number, Kinds.CHECKPOINT)
    refused = page.gate.raise_gate(9, later())
    assert "local ranks [0, 1] have not yet come to what was asked before" in refused.refusal
    assert "local ranks [0]" in page.gate.raise_gate(9, later(), ended=[1]).refusal
    for step in range(2, 60):
        assert ranks[0].step(step) == (SAVE if 51 <= step <= 58 else NOTHING)
    assert not page.gate.raise_gate(9, later(), ended=[1]).refusal


def test_a_rank_that_begins_late_reads_no_decision_that_was_overwritten(
    page: Events, rank: Rank, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody runs beside this, and 299 barriers would take 4 s.
    monkeypatch.setattr("llutil.events.gate.wait_for_all_processors", lambda: None)
    for number in range(1, 300):
        raise_and_open(page.gate, number, number, Kinds.CHECKPOINT)
    assert rank.step(299) == SAVE
    assert rank.slot.gate == 0
    assert rank.step(300) == NOTHING
    assert rank.slot.gate == 299


def test_a_gate_that_is_not_opened_in_time_holds_nobody_and_is_never_acted_on(
    page: Events, rank: Rank, caplog: pytest.LogCaptureFixture
) -> None:
    rank.step(1)
    assert page.gate.raise_gate(1, time.monotonic() - 5).furthest == 2
    assert rank.step(2) == NOTHING
    assert "held by gate 1: the agent did not open it in time" in caplog.text
    assert not page.gate.open_gate(1, 3, Kinds.CHECKPOINT)
    assert rank.step(3) == NOTHING


def test_nobody_waits_for_an_agent_that_has_ended(
    page: Events, rank: Rank, caplog: pytest.LogCaptureFixture
) -> None:
    rank.step(1)
    raise_and_open(page.gate, 1, 2, Kinds.PAUSE)
    page.gate.words[13] = (start_time(os.getpid()) or 0) + 1  # the pid is another process's now
    assert rank.step(2) == NOTHING
    assert "held by gate 1: the agent has ended" in caplog.text
    page.gate.raise_gate(2, later())
    page.gate.words[13] += 1
    assert rank.step(3) == NOTHING


def test_gates_are_raised_one_after_another(page: Events) -> None:
    gate = page.gate
    with pytest.raises(ValueError, match="gate 2 cannot be raised: gate 0 is the newest"):
        gate.raise_gate(2, later())
    gate.raise_gate(1, later())
    with pytest.raises(ValueError, match="gate 0 the newest one that was opened"):
        gate.raise_gate(2, later())
    assert gate.open_gate(1, None, Kinds.NOTHING) is True
    assert gate.open_gate(1, 5, Kinds.STOP) is False


def test_a_new_round_begins_without_gates(page: Events, rank: Rank) -> None:
    rank.step(1)
    raise_and_open(page.gate, 1, 2, Kinds.STOP)
    page.reset_slots()
    fresh = Steps(page.slot(0), page.gate)
    assert fresh.step(1, 0) == NOTHING
    assert page.gate.raise_gate(1, later()).furthest == 2
    page.gate.open_gate(1, 2, Kinds.STOP)
    assert fresh.step(2, 0) == END


@pytest.mark.parametrize(
    ("step", "error", "why"),
    [
        (4, ValueError, "step is 4 after step 5: steps never go back"),
        (-1, ValueError, "step is -1 and total is 0; wanted"),
        (LONGEST_STEP + 1, ValueError, "wanted whole numbers"),
        (6.0, TypeError, "step is 6.0 and total is 0; wanted whole numbers"),
        (float("nan"), ValueError, "step is nan"),
        ("6", TypeError, "step is '6'"),
        (None, TypeError, "step is None"),
    ],
)
def test_a_step_that_cannot_be_is_refused_and_changes_nothing(
    page: Events, step: object, error: type[Exception], why: str
) -> None:
    steps = Steps(page.slot(0), page.gate)
    steps.step(5, 0)
    with pytest.raises(error, match=why):
        steps.step(step, 0)  # type: ignore[arg-type]
    assert page.progress() == {0: (5, 0)}
    for later_step in (6, LONGEST_STEP):
        assert steps.step(later_step, 0) == NOTHING


def test_a_second_thread_is_refused(page: Events, rank: Rank) -> None:
    rank.step(1)
    with pytest.raises(RuntimeError, match="another thread has called it before"):
        rank.steps.step(2, 0)
    assert rank.step(2) == NOTHING


def test_a_process_without_an_agent_does_what_its_own_flags_say(page: Events) -> None:
    steps = LoneSteps(page)
    assert steps.step(1, 0) == NOTHING
    page.trigger_save_checkpoint.set()
    assert steps.step(2, 0) == SAVE
    assert steps.step(3, 0) == NOTHING
    assert not page.finished_save_checkpoint.is_set()
    steps.saved(2)
    assert page.finished_save_checkpoint.is_set()
    page.stop_all_tasks.set()
    assert steps.step(4, 0) == END


@pytest.mark.parametrize("kind", ["rank", "alone"])
@pytest.mark.parametrize(
    ("every", "steps", "saved"),
    [
        (5, range(1, 17), [5, 10, 15]),
        (1, range(3), [1, 2]),
        (5, [0, 4, 4, 6, 6, 9, 21, 24, 25], [6, 21, 25]),
        (5, [5, 5, 6, 10], [5, 10]),  # the first report is a multiple itself
        (5, [101, 104, 106], [106]),  # it went on after step 100, and has no older report
        (7, [700, 701, 706, 707], [700, 707]),
        (0, range(1, 5), []),
    ],
)
def test_a_rank_saves_whenever_its_steps_pass_a_multiple_of_every(
    page: Events, kind: str, every: int, steps: Iterable[int], saved: list[int]
) -> None:
    rank = LoneSteps(page, every) if kind == "alone" else Steps(page.slot(0), page.gate, every)
    todos = [(step, rank.step(step, 0)) for step in steps]
    assert [step for step, todo in todos if todo.checkpoint] == saved
    assert not any(todo.stop for _, todo in todos)


@pytest.fixture
def saving(page: Events, ranks: list[Rank]) -> Iterator[Rank]:
    """A rank that saves after every fifth step."""
    del ranks  # for what the fixture does at the end
    made = Rank(page, 0, every=5)
    yield made
    page.gate.words[8] = 0
    page.gate.reset()
    made.end()


def save(rank: Rank, step: int) -> None:
    rank.steps.saving()
    rank.steps.saved(step)
    rank.steps.left()


def test_a_step_that_is_due_and_asked_for_is_saved_once_and_the_gate_is_done_with_the_save(
    page: Events, saving: Rank
) -> None:
    saving.step(3)
    raise_and_open(page.gate, 1, 5, Kinds.CHECKPOINT)
    assert [saving.step(4), saving.step(5)] == [NOTHING, SAVE]
    assert (saving.slot.gate, saving.slot.saved) == (0, 0)
    save(saving, 5)
    assert (saving.slot.gate, saving.slot.saved, saving.slot.doing) == (1, 6, Doing.STEPS)
    assert [saving.step(step) for step in (5, 6, 9, 10)] == [NOTHING, NOTHING, NOTHING, SAVE]


def test_a_save_that_is_due_alone_is_no_gates(page: Events, saving: Rank) -> None:
    saving.step(4)
    raise_and_open(page.gate, 1, 7, Kinds.CHECKPOINT)
    assert saving.step(5) == SAVE
    save(saving, 5)
    assert (saving.slot.gate, saving.slot.saved) == (0, 6)
    assert [saving.step(6), saving.step(7)] == [NOTHING, SAVE]
    save(saving, 7)
    assert (saving.slot.gate, saving.slot.saved) == (1, 8)


def test_ranks_that_are_held_where_they_are_due_save_once_when_they_go_on(
    page: Events, saving: Rank
) -> None:
    saving.step(4)
    raise_and_open(page.gate, 1, 5, Kinds.PAUSE)
    held = saving.held(5)
    page.gate.end_pauses(2)
    assert held.result(SOON) == SAVE
    assert saving.slot.gate == 1
    page.gate.raise_gate(2, later())
    held = saving.held(10)
    page.gate.open_gate(2, 12, Kinds.STOP)
    assert held.result(SOON) == SAVE
    assert [saving.step(11), saving.step(12)] == [NOTHING, END]
    assert saving.step(15) == Todo(checkpoint=True, stop=True)


def _all_are_done_with(page: Events, number: int, size: int) -> bool:
    return all(page.slot(each).gate >= number for each in range(size))


def test_ranks_that_run_freely_act_on_every_gate_at_one_step(page: Events) -> None:
    """Three ranks in lockstep and an agent, at full speed: 20 wishes, one step for each."""
    size, wishes = 3, 20
    barrier = threading.Barrier(size)
    decided: list[int] = []
    acts: list[list[int]] = [[] for _ in range(size)]

    def train(number: int) -> None:
        steps = Steps(page.slot(number), page.gate)
        for step in itertools.count(1):
            barrier.wait(SOON)
            todo = steps.step(step, 0)
            if todo.checkpoint:
                acts[number].append(step)
            if todo.stop:
                return

    with ThreadPoolExecutor(size) as pool, ExitStack() as at_the_end:
        at_the_end.callback(barrier.abort)  # no rank trains on for ever if this fails
        working = [pool.submit(train, number) for number in range(size)]
        until(lambda: len(page.progress()) == size)
        for number in range(1, wishes + 2):
            kinds = Kinds.CHECKPOINT if number <= wishes else Kinds.STOP
            # A rank that has reported the step may not be done with its gate yet.
            until(partial(_all_are_done_with, page, number - 1, size))
            raised = page.gate.raise_gate(number, later())
            assert raised.furthest is not None
            assert not raised.refusal
            assert page.gate.open_gate(number, raised.furthest, kinds)
            decided.append(raised.furthest)
            until(lambda: all(page.slot(each).step >= decided[-1] for each in range(size)))
        for each in working:
            each.result(SOON)
    assert acts == [sorted(set(decided[:-1]))] * size
