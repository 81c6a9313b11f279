"""When a node of a gang gives its slot back and comes again, and when it has waited long enough.

Nodes that wait for others hold slots that the others may need: two gangs in a small pool could
block each other for ever. So a node whose job does not form ends, and comes back later, without
using up a try. The functions here only compute: times and randomness are arguments.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "RescheduleAt",
    "TimeIsUp",
    "absent_nodes",
    "describe_absent",
    "list_absent",
    "next_attempt",
    "slot_timeout",
]

_HERE = frozenset({"running", "restarting"})
_WAITING: Mapping[str | None, str] = {
    None: "not scheduled yet, in",
    "scheduled": "scheduled in",
    "queued": "queued in",
    "up_for_reschedule": "has given its slot back, in",
}
# Seconds. If a task is due again before the scheduler has learnt that its process has ended, the
# scheduler takes it for killed, and the task fails (Airflow 3.3.2). A busy scheduler learns it only
# after some seconds.
_SOONEST = 10.0


@dataclass(frozen=True, slots=True)
class RescheduleAt:
    """Come back at ``when``."""

    when: dt.datetime


@dataclass(frozen=True, slots=True)
class TimeIsUp:
    """The gang has no time left to form."""


def absent_nodes(
    node: int, min_nodes: int, states: Mapping[int, str | None], *, host: int | None = None
) -> dict[int, str | None] | None:
    """The absent nodes with their states, if ``node`` cannot have a job without them; else None.

    ``host`` is the node that hosts the job's store, if one does: no other node can do without it.
    """
    away = {
        number: state for number, state in states.items() if number != node and state not in _HERE
    }
    return away if host in away or len(states) - len(away) < min_nodes else None


def describe_absent(absent: Mapping[int, str | None], nodes: int, min_nodes: int, pool: str) -> str:
    """Which nodes are absent and what that means, for people."""
    there = nodes - len(absent)
    if there < min_nodes:
        text = f"only {there} of the {min_nodes} nodes that the job needs are there"
    else:
        text = f"{there} nodes are there, but not the one that hosts the job's store"
    return f"{text}; missing: {list_absent(absent, pool)}"


def list_absent(away: Mapping[int, str | None], pool: str) -> str:
    """The absent nodes and what Airflow says of each, for people."""
    return ", ".join(
        f"node {number} ({_WAITING[state]} pool {pool!r})"
        if state in _WAITING
        else f"node {number} ({state})"
        for number, state in away.items()
    )


def slot_timeout(timeout: float, draw: float) -> float:
    """The seconds that this node holds its slot: up to a quarter less than ``timeout``.

    ``draw``, a number from 0 to 1, says how much less. If all nodes that block each other gave up
    at the same time, those that come next would block each other as well.
    """
    return timeout * (1 - draw / 4)


def next_attempt(
    *,
    now: dt.datetime,
    began: dt.datetime,
    run_after: dt.datetime,
    timeout: float,
    held: float,
    draw: float,
) -> RescheduleAt | TimeIsUp:
    """Whether a node whose job did not form comes back, and when.

    ``began`` is when the node was first started. ``timeout`` is how many seconds its gang has to
    form, ``held`` how many it has just held its slot.

    It stays away for at most ``held`` seconds, by ``draw``, a number from 0 to 1. Nodes of an older
    DAG run, by ``run_after``, stay away for less. Nobody stays away for less than ten seconds.
    """
    left = timeout - (now - began).total_seconds()
    if left <= 0:
        return TimeIsUp()
    age = max(0.0, (now - run_after).total_seconds())
    longest = held * held / (held + age) if held > 0 else 0.0
    away = max(min(draw * longest, left), _SOONEST)
    return RescheduleAt(now + dt.timedelta(seconds=away))
