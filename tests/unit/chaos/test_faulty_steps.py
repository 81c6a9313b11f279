"""What ``worker.step`` does in a rank that faults may strike. The strikes themselves are played."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llutil.chaos import cut, faulty_steps, hang, kill, oom, preempt, slow
from llutil.chaos.faults import Cut, Fault, Hang, Kill, OutOfMemory
from llutil.chaos.faulty_steps import FaultySteps
from llutil.chaos.rank_faults import RankFaults, rank_faults
from llutil.chaos.strikes import preempt_for_chaos, run_out_of_memory
from llutil.chaos.variable import CHAOS
from llutil.errors import ConfigError
from llutil.events.events import SLOT_NUMBER, Events
from llutil.events.steps import Steps, Todo

AGENT = 4711


class Struck(BaseException):
    """The rank is gone."""


class PlayedClock:
    """What a rank takes for ``time``. It has been up for long, as a host has."""

    def __init__(self) -> None:
        self.now = 1e6
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> PlayedClock:
    """The clock of a rank, which a test moves."""
    clock = PlayedClock()
    monkeypatch.setattr(faulty_steps, "time", clock)
    return clock


@pytest.fixture
def struck(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has struck. A rank that is struck dead raises."""
    found: list[str] = []

    def fatal(name: str) -> Callable[[], None]:
        def strike() -> None:
            found.append(name)
            raise Struck

        return strike

    ends = {Kill: fatal("kill"), Hang: fatal("hang"), OutOfMemory: fatal("oom")}
    monkeypatch.setattr(faulty_steps, "_ENDS", ends)
    monkeypatch.setattr(
        faulty_steps, "preempt_for_chaos", lambda agent, _: found.append(f"preempt {agent}")
    )
    return found


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(faulty_steps, "say", found.append)
    return found


@pytest.fixture
def page() -> Iterator[Events]:
    page = Events.private()
    yield page
    page.close()


@pytest.fixture
def begin(page: Events, tmp_path: Path) -> Callable[..., FaultySteps]:
    """A rank in a new process, one of two on each of two nodes."""

    def begin(*faults: Fault, rank: int = 1, memory: str = "") -> FaultySteps:
        notes = memory or str(tmp_path / "notes")
        told = RankFaults(faults=faults, memory=notes, agent=AGENT, agent_start=1)
        sizes = {"WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2", "GROUP_RANK": str(rank // 2)}
        place = {"RANK": str(rank), SLOT_NUMBER: str(rank % 2)}
        return FaultySteps(page.slot(rank % 2), page, 0, {**told.variable(), **sizes, **place})

    return begin


Begin = Callable[..., FaultySteps]


@pytest.mark.parametrize("fault", [kill, hang, oom])
def test_a_fault_strikes_its_rank_at_its_step_once_that_is_reported(
    fault: Callable[..., Fault], begin: Begin, struck: list[str], said: list[str], page: Events
) -> None:
    one = fault(rank=1, step=3)
    others = begin(one, rank=2)
    steps = begin(one)
    for step in (1, 2):
        assert steps.step(step, 9) == Todo()
        others.step(step, 9)
    others.step(3, 9)
    assert struck == said == []
    with pytest.raises(Struck):
        steps.step(3, 9)
    assert struck == [one.word]
    assert page.slot(1).step == 3
    assert said == [f"{one} strikes rank 1 after step 3"]


def test_a_fault_strikes_once_also_after_a_restart(begin: Begin, struck: list[str]) -> None:
    for fault in (kill(rank=1, step=3), preempt(node=0, step=2)):
        ranks = [begin(fault, rank=rank) for rank in (0, 1)]
        for one in ranks:
            try:
                one.step(3, 0)
            except Struck:
                continue
        again = [begin(fault, rank=rank) for rank in (0, 1)]
        for one in again:
            for step in (2, 3, 4):
                one.step(step, 0)
    assert struck == ["kill", f"preempt {AGENT}"]


def test_of_equal_faults_each_strikes_once(begin: Begin, struck: list[str]) -> None:
    faults = [kill(rank=1, step=3)] * 2
    for _ in range(2):
        with pytest.raises(Struck):
            begin(*faults).step(3, 0)
    begin(*faults).step(3, 0)
    assert struck == ["kill", "kill"]


def test_a_rank_that_reports_seldom_is_struck_at_its_next_report(
    begin: Begin, struck: list[str]
) -> None:
    steps = begin(kill(rank=1, step=5))
    steps.step(4, 0)
    with pytest.raises(Struck):
        steps.step(10, 0)


def test_the_first_rank_of_a_node_makes_what_strikes_the_node(
    begin: Begin, struck: list[str], page: Events
) -> None:
    faults = preempt(node=1, step=2), cut(node=1, seconds=20, step=2)
    for rank in (0, 1, 3):
        begin(*faults, rank=rank).step(2, 0)
    assert struck == []
    assert page.cut_order.take(time.monotonic()) == 0
    begin(*faults, rank=2).step(2, 0)
    assert struck == [f"preempt {AGENT}"]
    assert page.cut_order.take(time.monotonic()) == 20
    assert page.cut_order.take(time.monotonic()) == 0


def test_a_preempted_rank_goes_on_and_an_agent_that_is_gone_is_said(
    begin: Begin, said: list[str]
) -> None:
    assert begin(preempt(node=0, step=2), rank=0).step(2, 0) == Todo()
    gone = "the process has ended, or its number is another's"
    assert said[-1].endswith(f"the agent {AGENT} got no SIGTERM: {gone}")


def test_a_process_that_has_the_number_of_an_agent_that_is_gone_is_not_signalled() -> None:
    with pytest.raises(OSError, match="its number is another's"):
        preempt_for_chaos(os.getppid(), 1)


def test_a_fault_that_nobody_can_note_does_not_strike(
    begin: Begin, struck: list[str], said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    begin(kill(rank=1, step=1), memory=str(tmp_path / "file")).step(1, 0)
    assert struck == []
    assert said[-1].startswith("kill(rank=1, step=1) does not strike: nobody could note")


def test_a_slow_rank_takes_so_many_times_as_long(begin: Begin, clock: PlayedClock) -> None:
    steps = begin(slow(rank=1, factor=3, step=2, steps=2))
    for step in range(1, 6):
        clock.now += step
        steps.step(step, 0)
    assert clock.slept == [4.0, 6.0]


def test_a_slow_rank_is_not_slow_for_the_time_that_it_saves_with_others(
    begin: Begin, clock: PlayedClock
) -> None:
    steps = begin(slow(rank=1, factor=3))
    steps.step(1, 0)
    steps.saving()
    clock.now += 60
    steps.left()
    clock.now += 1
    steps.step(2, 0)
    assert clock.slept == [2.0]


def test_a_slow_rank_that_saves_before_its_first_step_is_not_slow_for_the_time_before_that(
    begin: Begin, clock: PlayedClock
) -> None:
    steps = begin(slow(rank=1, factor=3))
    steps.saving()
    clock.now += 60
    steps.left()
    clock.now += 1
    steps.step(1, 0)
    assert clock.slept == []
    clock.now += 1
    steps.step(2, 0)
    assert clock.slept == [2.0]


def test_a_fault_that_is_out_of_reach_in_this_round_is_said_by_rank_0_alone(
    begin: Begin, said: list[str]
) -> None:
    faults = kill(rank=4, step=1), cut(node=2, seconds=1), kill(rank=3, step=1)
    begin(*faults, rank=1)
    assert said == []
    begin(*faults, rank=0)
    assert said == [
        "kill(rank=4, step=1) strikes nobody in this round, which has 4 ranks",
        "cut(node=2, seconds=1) strikes nobody in this round, which has 2 nodes",
    ]


def test_a_step_that_is_refused_strikes_nobody(begin: Begin, struck: list[str]) -> None:
    steps = begin(kill(rank=1, step=3))
    steps.step(2, 0)
    with pytest.raises(ValueError, match="steps never go back"):
        steps.step(1, 0)
    assert isinstance(steps, Steps)
    assert struck == []


def test_memory_that_nobody_has_raises_what_python_raises() -> None:
    with pytest.raises(MemoryError):
        run_out_of_memory()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"faults": ["x"], "memory": "", "agent": 1}'])
def test_a_variable_that_no_agent_wrote_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="which no agent has written"):
        rank_faults({CHAOS: text})


def test_what_the_agent_tells_is_what_the_rank_hears() -> None:
    faults = (kill(rank=1, step=3), Cut(node=0, seconds=0.25))
    told = RankFaults(faults=faults, memory="s3://b/c", agent=os.getpid(), agent_start=7)
    assert rank_faults(told.variable()) == told
