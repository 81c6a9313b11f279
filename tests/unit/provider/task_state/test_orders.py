"""What the value of the key ``control`` asks for."""

from __future__ import annotations

import pytest

from airflow_provider.task_state.orders import Order, read_order
from llutil.agent_process.job_page import FLAGS

SAID = "the key 'control' of the task's state says"


@pytest.mark.parametrize(
    ("value", "order"),
    [
        ("pause", Order("pause", "pause", f"{SAID} pause")),
        (" Resume\n", Order("resume", "resume", f"{SAID} resume")),
        ("checkpoint", Order("checkpoint", "trigger_save_checkpoint", f"{SAID} checkpoint")),
        (
            {"do": "stop", "why": "good enough"},
            Order("stop", "stop_all_tasks", f"{SAID} stop: good enough"),
        ),
        ("stacks", Order("stacks", "show_stacks", f"{SAID} stacks")),
        ({"do": "stop"}, Order("stop", "stop_all_tasks", f"{SAID} stop")),
        ('"pause"', Order("pause", "pause", f"{SAID} pause")),
        (
            '{"do": "checkpoint", "why": "night"}',
            Order("checkpoint", "trigger_save_checkpoint", f"{SAID} checkpoint: night"),
        ),
        ({"do": "stop", "why": 7}, Order("stop", "stop_all_tasks", f"{SAID} stop: 7")),
    ],
)
def test_a_word_and_a_reason_are_understood(value, order):
    assert read_order(value) == order
    assert order.flag in FLAGS


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        pytest.param("[" * 50_000, id="deep"),
        "7.5",
        "dance",
        3,
        True,
        ["stop"],
        {},
        {"do": None},
        {"stop": True},
        {"do": ["stop"]},
    ],
)
def test_anything_else_is_answered_with_what_is_possible(value):
    refused = read_order(value)
    assert isinstance(refused, str)
    assert refused.startswith(f"is {repr(value)[:200]}; ")
    assert "one of 'checkpoint', 'pause', 'resume', 'stop'" in refused


def test_a_long_value_is_not_repeated_as_a_whole():
    assert len(str(read_order("x" * 60_000))) < 500
