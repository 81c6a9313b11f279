"""What an agent's observer hears is kept for whoever asks, and passed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llutil.agent.control import job_observer
from llutil.agent.control.job_observer import JobObserver
from llutil.agent_socket.round_end import RoundEnd, RoundEndKind


class Inner:
    """An observer that notes the calls."""

    captures = wants_status = True

    def __init__(self, *, wants_progress: bool) -> None:
        self.wants_progress = wants_progress
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def note(*args: Any) -> str:
            self.calls.append((name, *args))
            return f"the answer to {name}"

        return note


CALLS: tuple[tuple[Any, ...], ...] = (
    ("fds",),
    ("output_lines", 0, "[0]:", "stdout", ["hello"]),
    ("round", 1, 2, (0, 1)),
    ("round_ended", RoundEnd(kind=RoundEndKind.SUCCESS)),
    ("status", None),
    ("time_spent", 3.0, 0.5, 1, "3 s"),
    ("ledger_served", "host:1"),
    ("progress", {0: (3, 10)}, {"loss": 0.5}),
    ("measured", "launch", 1.5),
    ("saved", 3, 1.5, "/c/step-3"),
    ("steered", "paused after step 3", "paused"),
    ("stopped", 3, "enough"),
    ("congested",),
    ("when_not_congested", print),
)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_every_call_is_passed_on(call: tuple[Any, ...]) -> None:
    inner = Inner(wants_progress=True)
    name, *args = call
    answer = getattr(JobObserver(inner), name)(*args)
    assert inner.calls == [call]
    assert answer in {None, f"the answer to {name}"}


def test_progress_is_kept_and_passed_on_only_to_who_wants_it() -> None:
    inner = Inner(wants_progress=False)
    observer = JobObserver(inner)
    assert observer.wants_progress
    observer.progress({0: (3, 10)}, {"loss": 0.5})
    assert (observer.steps, observer.metrics) == ({0: (3, 10)}, {"loss": 0.5})
    observer.progress({}, {})  # a person debugs a rank
    assert observer.steps == {0: (3, 10)}
    assert not inner.calls


def test_a_new_round_forgets_the_last_ones_steps_and_its_end_does_not() -> None:
    observer = JobObserver(Inner(wants_progress=False))
    observer.round(0, 2, (0, 1))
    observer.progress({0: (3, 10)}, {})
    observer.saved(3)
    observer.steered("stops after step 3")
    observer.round(0, 0, ())
    assert (observer.steps, observer.saved_step) == ({0: (3, 10)}, 3)
    observer.round(1, 2, (0, 1))
    assert (observer.restarts, observer.world_size, observer.ranks) == (1, 2, (0, 1))
    assert (observer.steps, observer.saved_step, observer.detail) == ({}, None, "")


def test_rounds_and_their_first_steps_and_what_was_asked_change_what_a_node_does() -> None:
    observer = JobObserver(Inner(wants_progress=False))
    told: list[str] = []
    observer.on_change = lambda: told.append("changed")
    observer.round(0, 2, (0, 1))
    observer.progress({0: (3, 10)}, {})
    assert told == ["changed"] * 2
    observer.progress({0: (4, 10)}, {})
    observer.saved(3)
    assert told == ["changed"] * 2
    observer.steered("paused after step 3")
    observer.round(0, 0, ())
    assert told == ["changed"] * 4


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def at(observer: JobObserver, clock: Clock, steps: Mapping[float, int]) -> None:
    for clock.now, step in steps.items():
        observer.progress({0: (step, 100)}, {})


def test_the_pace_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(job_observer, "time", clock)
    observer = JobObserver(Inner(wants_progress=False))
    assert observer.pace is None
    at(observer, clock, {0.0: 0, 1.0: 4})
    assert observer.pace is not None
    assert observer.pace.rate == 4.0
    at(observer, clock, {second: 4 + 2 * (second - 1) for second in range(2, 21)})
    clock.now = 20.4  # no report since
    assert observer.pace is not None
    assert observer.pace.rate == 2.0
    assert observer.pace.seconds_left == (100 - 42) / 2


def test_a_pause_is_no_part_of_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(job_observer, "time", clock)
    observer = JobObserver(Inner(wants_progress=False))
    at(observer, clock, {0.0: 0, 1.0: 4})
    observer.steered("paused after step 4")
    observer.steered("resumed")
    at(observer, clock, {61.0: 4, 62.0: 8})
    assert observer.pace is not None
    assert observer.pace.rate == 4.0
