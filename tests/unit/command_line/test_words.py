from __future__ import annotations

from typing import Any

import pytest

from llutil.agent_socket.messages import State
from llutil.command_line import words
from tests.support.job_statuses import job_status


@pytest.mark.parametrize(
    ("fields", "steps", "rate"),
    [
        ({}, "-", "-"),
        ({"step": 5, "rate": 12.345}, "5", "12.3/s"),
        ({"step": 5, "total": 20, "rate": 0.25}, "5/20", "4 s a step"),
    ],
)
def test_steps_and_rate(fields: dict[str, Any], steps: str, rate: str) -> None:
    status = job_status(**fields)
    assert (words.steps(status), words.rate(status)) == (steps, rate)


def test_the_whole_state() -> None:
    fields: dict[str, Any] = {"step": 5, "total": 20, "rate": 2.0, "seconds_left": 7.5}
    assert words.whole_state(job_status(**fields)).text == (
        "runs, step 5 of 20, 2 steps/s, 8 s left"
    )
    paused = job_status(state=State.PAUSED, step=5, detail="paused after step 5: llutil pause")
    assert words.whole_state(paused).text == "paused, step 5, paused after step 5: llutil pause"


def test_every_state_has_a_colour() -> None:
    assert all(words.style_of(job_status(state=state)) for state in State)
