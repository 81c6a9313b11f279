"""What a person asks of a running job by the value of the key ``control`` in the task's state.

The value is a word, or ``{"do": word, "why": text}``; or one of these as JSON in a text, as a
person may type it. This module reads values alone; it may import only the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["ANSWER", "CONTROL", "Order", "read_order"]

CONTROL = "control"
"""The key that a person sets to steer the job. The task deletes it when it reads it."""

ANSWER = "control_answer"
"""The key that says what was understood, and what came of it."""

_FLAGS: Mapping[str, str] = {
    "checkpoint": "trigger_save_checkpoint",
    "pause": "pause",
    "resume": "resume",
    "stop": "stop_all_tasks",
    "stacks": "show_stacks",
}
"""The flag of the event page for each word."""

_SHOWN = 200
"""Characters of a value that are shown again."""


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked: raise ``flag`` on the page of the job. ``why`` is for people."""

    word: str
    flag: str
    why: str


def read_order(value: object) -> Order | str:
    """What ``value`` asks for; or what is wrong with it, and what is possible."""
    given = value
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):  # a word alone is no JSON
            given = json.loads(value)
    word, why = given, ""
    if isinstance(given, Mapping):
        word, why = given.get("do"), str(given.get("why") or "")
    known = word.strip().lower() if isinstance(word, str) else ""
    if known in _FLAGS:
        said = f"the key {CONTROL!r} of the task's state says {known}"
        return Order(known, _FLAGS[known], f"{said}: {why}" if why else said)
    possible = ", ".join(map(repr, _FLAGS))
    return (
        f"is {repr(value)[:_SHOWN]}; wanted one of {possible}, or "
        '{"do": one of them, "why": a text}'
    )
