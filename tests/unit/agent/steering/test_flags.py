"""What the flags of a page ask for."""

from __future__ import annotations

import pytest

from llutil.agent.steering.flags import FlagReader
from llutil.events.events import Events
from llutil.rendezvous.protocol.gate_records import WishKind

CHECKPOINT, STOP, PAUSE, RESUME, DEBUGGER_START, DEBUGGER_END, STACKS = WishKind


@pytest.fixture
def page() -> Events:
    return Events.private()


def reader(page: Events, *, saves: bool = False, every: float | None = None) -> FlagReader:
    found = FlagReader(page, saves=saves, every=every)
    found.begin(0.0, first_node=True)
    return found


def test_a_checkpoint_is_wished_once_and_its_flags_say_that_it_is_under_way(page: Events) -> None:
    flags = reader(page)
    page.finished_save_checkpoint.set()
    page.trigger_save_checkpoint.set()
    assert set(flags.wanted(1.0)) == {CHECKPOINT}
    assert not page.trigger_save_checkpoint.is_set()
    assert not page.finished_save_checkpoint.is_set()
    assert not flags.wanted(1.0)


def test_a_trigger_while_one_is_wished_stays_for_the_next(page: Events) -> None:
    flags = reader(page)
    page.trigger_save_checkpoint.set()
    flags.wanted(1.0)
    page.trigger_save_checkpoint.set()
    assert not flags.wanted(1.0)
    flags.decided({CHECKPOINT})
    assert set(flags.wanted(1.0)) == {CHECKPOINT}


@pytest.mark.parametrize(("saves", "kinds"), [(True, {STOP, CHECKPOINT}), (False, {STOP})])
def test_a_stop_saves_first_if_there_is_a_place(
    page: Events, saves: bool, kinds: set[WishKind]
) -> None:
    flags = reader(page, saves=saves)
    page.stop_all_tasks.set()
    assert set(flags.wanted(1.0)) == kinds


def test_a_stop_is_wished_again_in_the_next_round(page: Events) -> None:
    flags = reader(page)
    page.stop_all_tasks.set()
    flags.wanted(1.0)
    flags.decided({STOP})
    assert not flags.wanted(2.0)
    flags.begin(3.0, first_node=True)
    assert set(flags.wanted(3.0)) == {STOP}


def test_what_was_refused_is_wished_again_ever_more_rarely(page: Events) -> None:
    flags = reader(page)
    page.stop_all_tasks.set()
    now, waits = 0.0, []
    for _ in range(8):
        assert set(flags.wanted(now)) == {STOP}
        assert flags.refused({STOP, PAUSE}, now) == {STOP}
        refused = now
        while not flags.wanted(now):
            now += 0.5
        waits.append(now - refused)
        flags.refused({STOP}, refused)
        now = refused + waits[-1] * 2 + 1
    assert waits[0] >= 2.0
    assert waits[-1] <= 120.0
    assert waits == sorted(waits)


def test_a_decision_raises_the_flags_on_a_node_that_had_not_wished_it(page: Events) -> None:
    flags = reader(page)
    flags.decided({STOP, PAUSE})
    assert page.stop_all_tasks.is_set()
    assert page.pause.is_set()
    assert not flags.wanted(1.0)


def test_a_resume_is_wished_while_ranks_pause_and_lowers_all_three_flags(page: Events) -> None:
    flags = reader(page)
    page.pause.set()
    assert set(flags.wanted(1.0)) == {PAUSE}
    flags.decided({PAUSE})
    page.paused.set()
    page.resume.set()
    assert set(flags.wanted(2.0)) == {RESUME}
    assert not flags.wanted(2.0)
    flags.end_pause()
    assert not any(flag.is_set() for flag in (page.pause, page.paused, page.resume))
    assert not flags.wanted(3.0)


def test_a_resume_of_nothing_lowers_the_flags(page: Events) -> None:
    flags = reader(page)
    page.pause.set()
    page.resume.set()
    assert not flags.wanted(1.0)
    assert not page.pause.is_set()
    assert not page.resume.is_set()


def test_the_first_node_wishes_a_checkpoint_whenever_one_is_due(page: Events) -> None:
    flags = reader(page, every=10.0)
    assert not flags.wanted(9.0)
    assert set(flags.wanted(10.0)) == {CHECKPOINT}
    assert not flags.wanted(11.0)
    flags.decided({CHECKPOINT})
    flags.saved(13.0)
    assert not flags.wanted(22.0)
    assert set(flags.wanted(23.0)) == {CHECKPOINT}


def test_none_is_due_while_ranks_are_still_to_save_one(page: Events) -> None:
    flags = FlagReader(page, saves=True, every=10.0)
    flags.begin(0.0, first_node=True)
    assert WishKind.CHECKPOINT in flags.wanted(10.0)
    flags.decided({WishKind.CHECKPOINT})
    assert flags.wanted(10.1) == flags.wanted(30.0) == {}, "a rank takes long for a step"
    page.trigger_save_checkpoint.set()
    assert WishKind.CHECKPOINT in flags.wanted(30.0), "somebody asks for one"
    flags.decided({WishKind.CHECKPOINT})
    flags.saved(31.0)
    assert flags.wanted(40.0) == {}
    assert WishKind.CHECKPOINT in flags.wanted(41.0)


def test_no_other_node_wishes_one_by_the_clock(page: Events) -> None:
    flags = FlagReader(page, saves=True, every=10.0)
    flags.begin(0.0, first_node=False)
    assert not flags.wanted(1000.0)


def test_who_asked_is_in_the_wish_until_it_is_decided(page: Events) -> None:
    flags = reader(page)
    flags.ask(PAUSE, "llutil pause: the data move")
    assert flags.wanted(1.0) == {PAUSE: "llutil pause: the data move"}
    flags.refused({PAUSE}, 1.0)
    assert flags.wanted(10.0) == {PAUSE: "llutil pause: the data move"}
    flags.decided({PAUSE})
    flags.ask(RESUME, "llutil resume")
    assert flags.wanted(11.0) == {RESUME: "llutil resume"}
    flags.end_pause()
    page.pause.set()
    assert flags.wanted(12.0) == {PAUSE: "pause was raised"}


def test_a_pause_that_is_asked_for_takes_back_a_resume_that_nobody_has_seen(page: Events) -> None:
    flags = reader(page)
    flags.ask(RESUME, "llutil resume")
    flags.ask(PAUSE, "llutil pause")
    assert set(flags.wanted(1.0)) == {PAUSE}


def test_stacks_are_wished_once_for_each_time_that_somebody_wants_them(page: Events) -> None:
    flags = reader(page)
    assert not flags.stacks()
    page.show_stacks.set()
    assert flags.stacks() == {STACKS: "show_stacks was raised"}
    assert not page.show_stacks.is_set()
    page.show_stacks.set()
    assert not flags.stacks()  # the first wish is under way
    flags.stacks_shown()
    assert set(flags.stacks()) == {STACKS}
