"""The event page within one process: flags, slots, values, pickling, removal."""

from __future__ import annotations

import math
import pickle
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.errors import ConfigError
from llutil.events.events import CAPACITY, ENVIRONMENT, Events, Flag
from tests.support.descriptors import open_descriptors
from tests.support.forks import in_a_fork

FLAGS = (
    "pause",
    "paused",
    "resume",
    "stop_all_tasks",
    "trigger_save_checkpoint",
    "finished_save_checkpoint",
    "debugger_start",
    "debugger_end",
    "show_stacks",
)
WORD = st.integers(0, 2**64 - 1)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Events]:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with Events(folder=tmp_path) as events:
        yield events
    assert list(tmp_path.iterdir()) == []


def flags(events: Events) -> dict[str, bool]:
    return {name: getattr(events, name).is_set() for name in FLAGS}


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_that_is_raised_and_lowered_touches_no_other(page: Events, name: str) -> None:
    other = Events.attach(page.path)
    flag: Flag = getattr(page, name)
    flag.set()
    assert flags(other) == {each: each == name for each in FLAGS}
    flag.clear()
    assert flags(other) == dict.fromkeys(FLAGS, False)


def test_every_flag_of_a_new_page_is_down(page: Events) -> None:
    assert flags(page) == dict.fromkeys(FLAGS, False)


def test_waiting_for_a_raised_flag_returns_at_once_whatever_the_deadline(page: Events) -> None:
    page.pause.set()
    for deadline in (-math.inf, 0.0, math.inf):
        assert page.pause.wait(deadline)


def test_waiting_with_a_deadline_in_the_past_only_looks(page: Events) -> None:
    assert not page.pause.wait(time.monotonic() - 1)
    assert not page.pause.wait(-math.inf)


def test_a_deadline_that_is_no_number_is_refused(page: Events) -> None:
    with pytest.raises(ValueError, match="deadline is NaN"):
        page.pause.wait(math.nan)


def test_a_waiting_thread_lets_others_run_and_wakes_when_one_raises_the_flag(page: Events) -> None:
    answers: list[bool] = []
    waiter = threading.Thread(
        target=lambda: answers.append(page.resume.wait(time.monotonic() + 30))
    )
    waiter.start()
    Events.attach(page.path).resume.set()
    waiter.join(10)
    assert answers == [True]


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    reports=st.dictionaries(st.integers(0, CAPACITY - 1), st.tuples(WORD, WORD.filter(bool))),
)
def test_progress_is_what_each_rank_reported_last(reports: dict[int, tuple[int, int]]) -> None:
    page = Events.private()
    for rank, (step, total) in reports.items():
        page.slot(rank).report(0, 1)
        page.slot(rank).report(step, total)
    assert page.progress() == reports
    page.close()


def test_a_slot_fills_a_line_of_its_own(page: Events) -> None:
    for rank in range(CAPACITY):
        slot = page.slot(rank)
        slot.step, slot.total, slot.heartbeat = (rank, rank + 1, rank + 2)
    for rank in range(CAPACITY):
        slot = page.slot(rank)
        assert (slot.step, slot.total, slot.heartbeat) == (rank, rank + 1, rank + 2)
    assert flags(page) == dict.fromkeys(FLAGS, False)


def test_a_report_without_total_keeps_the_last_one(page: Events) -> None:
    slot = page.slot(1)
    slot.report(1, 10)
    slot.report(2)
    assert page.progress() == {1: (2, 10)}


def test_a_report_is_stamped_with_the_monotonic_clock(page: Events) -> None:
    before = time.monotonic_ns()
    page.slot(0).report(0)
    assert before <= page.slot(0).heartbeat <= time.monotonic_ns()


@pytest.mark.parametrize(
    ("step", "error"), [(-1, ValueError), (2**64, ValueError), (1.0, TypeError)]
)
def test_a_step_that_is_no_count_is_refused_and_changes_nothing(
    page: Events, step: int, error: type[Exception]
) -> None:
    page.slot(0).report(5)
    with pytest.raises(error, match="wanted whole numbers from 0"):
        page.slot(0).report(step)
    assert page.progress() == {0: (5, 0)}


@pytest.mark.parametrize("rank", [-1, CAPACITY])
def test_a_rank_without_a_slot_is_refused(page: Events, rank: int) -> None:
    with pytest.raises(ConfigError, match=f"local rank {rank} has no slot: a page has 256"):
        page.slot(rank)


def test_a_new_round_empties_the_slots_and_nothing_else(page: Events) -> None:
    page.pause.set()
    page.progress_bar_total.value = 7
    page.slot(0).report(1, 2)
    page.slot(255).report(3)
    page.reset_slots()
    assert page.progress() == {}
    assert page.slot(255).step == 0
    assert page.pause.is_set()
    assert page.progress_bar_total.value == 7


def test_the_bar_of_a_node_is_its_slowest_rank(page: Events) -> None:
    page.slot(0).report(4, 10)
    page.slot(3).report(3, 12)
    assert (page.progress_bar_iter.value, page.progress_bar_total.value) == (3, 12)


def test_before_any_report_the_bar_of_a_node_is_what_was_set_outside(page: Events) -> None:
    page.progress_bar_iter.value = 2
    page.progress_bar_total.value = 50
    assert (page.progress_bar_iter.value, page.progress_bar_total.value) == (2, 50)
    page.slot(0).report(9)  # a rank that knows no total
    assert (page.progress_bar_iter.value, page.progress_bar_total.value) == (9, 50)


def test_a_worker_writes_and_reads_its_own_rank(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.slot(0).report(100, 100)
    by_rank = Events.attach(page.path, local_rank=1)
    by_rank.progress_bar_iter.value = 4
    by_rank.progress_bar_total.value = 8
    by_rank.progress_bar_iter.value += 1
    assert (by_rank.progress_bar_iter.value, by_rank.progress_bar_total.value) == (5, 8)

    monkeypatch.setenv(ENVIRONMENT, page.path)
    monkeypatch.setenv("LOCAL_RANK", "2")
    page.progress_bar_iter.value = 6
    page.progress_bar_total.value = 8
    assert page.progress() == {0: (100, 100), 1: (5, 8), 2: (6, 8)}


def test_the_rank_of_another_page_is_not_taken_for_ones_own(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, page.path + "-of-the-launch-around")
    monkeypatch.setenv("LOCAL_RANK", "2")
    page.progress_bar_iter.value = 6
    assert page.progress() == {}


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_pickling_sends_the_page_and_not_a_copy(page: Events, pickler: object) -> None:
    other = pickle.loads(pickler.dumps(page))  # type: ignore[attr-defined]
    other.paused.set()
    assert page.paused.is_set()
    other.close()
    assert Path(page.path).exists()


def test_a_private_page_has_no_file_and_says_so() -> None:
    with Events.private() as events, pytest.raises(ConfigError, match="no other process can map"):
        pickle.dumps(events)


def test_the_file_is_for_this_user_alone(page: Events) -> None:
    assert stat.S_IMODE(Path(page.path).stat().st_mode) == 0o600


def test_closing_twice_is_closing_once(page: Events) -> None:
    path = page.path
    page.close()
    page.close()
    assert not Path(path).exists()
    with pytest.raises(ValueError, match="released"):
        page.pause.is_set()


@in_a_fork
def test_a_page_that_is_dropped_leaves_no_file_and_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    events = Events(folder=tmp_path)
    path = Path(events.path)
    assert path.exists()
    del events  # no cycle holds it, so there is nothing to collect
    assert not path.exists()
    assert open_descriptors() == before


def test_a_slot_outlives_its_page(tmp_path: Path) -> None:
    with Events(folder=tmp_path) as events:
        slot = events.slot(0)
    slot.report(1)
    assert slot.step == 1


def test_a_thread_that_waits_outlives_the_close(tmp_path: Path) -> None:
    answers: list[bool] = []
    entered = threading.Event()
    events = Events(folder=tmp_path)
    flag = events.pause

    def wait() -> None:
        deadline = time.monotonic() + 0.05
        entered.set()
        try:
            answers.append(flag.wait(deadline))
        except ValueError:  # closed before the wait began
            answers.append(False)

    waiter = threading.Thread(target=wait)
    waiter.start()
    entered.wait(10)
    events.close()
    waiter.join(10)
    assert answers
    assert not any(answers)


def test_what_ranks_resumed_from_is_known_until_the_next_round(page: Events) -> None:
    assert page.resumed_from is None
    Events.attach(page.path).resumed_from = 0
    assert page.resumed_from == 0
    page.reset_slots()
    assert page.resumed_from is None
