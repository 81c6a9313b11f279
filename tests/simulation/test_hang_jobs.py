"""The hang watchdog over random jobs: no false alarm, and what hangs is found."""

from __future__ import annotations

import os
from typing import Any

import pytest

from llutil.agent.hang import hang_watch, odd_rank
from tests.simulation.hang_jobs import play

# ``make long`` and ``python -m tests.simulation.hang_jobs`` play a thousand.
JOBS = range(int(os.environ.get("LLUTIL_TEST_HANG_JOBS", "60")))
FEW = range(20)


def test_jobs_that_go_well_are_never_suspected_and_hangs_are_found_in_time() -> None:
    for seed in JOBS:
        outcome = play(seed)
        assert not outcome.false_alarm, outcome
        if outcome.hang:
            assert outcome.after is not None, outcome
        if outcome.hang in {"lock", "spin"}:
            assert outcome.named == outcome.odd, outcome


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (hang_watch, "_IDLE_FLOOR", 60.0),
        (hang_watch, "_IDLE_SHARE", 0.1),
        (hang_watch, "_WORKING_FLOOR", 1800.0),
        (odd_rank, "_stands_still", lambda *_, **__: True),
    ],
    ids=["idle for a minute", "most ranks are idle", "work of half an hour", "stacks do not count"],
)
def test_the_jobs_notice_a_watch_that_is_too_quick(
    place: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, value)
    assert any(play(seed).false_alarm for seed in FEW)
