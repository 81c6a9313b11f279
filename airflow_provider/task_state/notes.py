"""The values for people in a task's state: where the job is, its last checkpoint, its progress.

These functions make values of what they are given. Each value is a few hundred bytes, whatever the
number of ranks. This module may import only the standard library and ``llutil.progress``.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

from llutil.progress.pace import Steps, pace

__all__ = [
    "CHECKPOINT",
    "PROGRESS",
    "STATE",
    "checkpoint_note",
    "progress_note",
    "state_note",
    "write_period",
]

STATE = "state"
"""The key that says where the job is, and since when, for people."""
PROGRESS = "progress"
"""The key that says how far the ranks of this node are."""
CHECKPOINT = "checkpoint"
"""The key that says which checkpoint was committed last, and where the job has them."""

_LONGEST_TEXT = 1000
"""Characters of a text."""

_SHORTEST, _OF_A_NODE, _LONGEST = 10.0, 5.0, 600.0
"""Seconds between two writes of one key: at least, for each node of the job, and at most. So a job
writes at most once in 5 seconds until it has 120 nodes.
"""


def write_period(world_size: int, ranks_here: int) -> float:
    """Seconds between two writes of one key by this node, in a job of ``world_size`` ranks."""
    nodes = world_size / max(1, ranks_here)
    return min(max(_SHORTEST, _OF_A_NODE * nodes), _LONGEST)


def state_note(
    text: str, now: dt.datetime, *, try_number: int, world_size: int = 0, hears: bool = False
) -> dict[str, Any]:
    """Where the job is, since when. ``hears``: this task instance takes orders."""
    note: dict[str, Any] = {"is": _cut(text), "since": time_text(now), "try": try_number}
    if world_size:
        note["world_size"] = world_size
        note["control"] = "taken here" if hears else "taken by the task instance with rank 0"
    return note


def checkpoint_note(step: int, folder: str, now: dt.datetime) -> dict[str, Any]:
    """The last checkpoint that is committed; ``folder`` holds all of the job's."""
    return {"step": step, "folder": folder, "time": time_text(now)}


def progress_note(
    ranks: Steps, elapsed: float, before: Steps, metrics: Mapping[str, float], now: dt.datetime
) -> dict[str, Any]:
    """How far this node's ranks are: the slowest, which the job waits for, and the fastest.

    ``before`` is where they were ``elapsed`` seconds ago. ``metrics`` are those of one rank.
    """
    steps = [step for step, _ in ranks.values()]
    note: dict[str, Any] = {"step": min(steps), "fastest": max(steps), "ranks": len(steps)}
    if total := max(total for _, total in ranks.values()):
        note["total"] = total
    if (found := pace(ranks, elapsed, before)) is not None:
        note["steps_per_second"] = float(f"{found.rate:.4g}")
        if found.seconds_left is not None:
            note["seconds_left"] = round(found.seconds_left)
    if metrics:
        # NaN and infinity are no JSON.
        note["metrics"] = {
            name: value if math.isfinite(value) else str(value) for name, value in metrics.items()
        }
    return note | {"time": time_text(now)}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} ..."


def time_text(now: dt.datetime) -> str:
    return now.astimezone(dt.UTC).isoformat(timespec="seconds")
