"""When a node of a gang gives its slot back and comes again, and when it has waited long enough.

Nodes that wait for others hold slots that the others may need: two gangs in a small pool could hold
each other up for ever. So a node whose job does not form leaves, and comes back later, without
using up a try. Functions here only compute: times and randomness are arguments.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "RescheduleAt",
    "TimeIsUp",
    "another_time",
    "described",
    "listed",
    "missing",
    "own_timeout",
]

_HERE = frozenset({"running", "restarting"})
_WAITING: Mapping[str | None, str] = {
    None: "not scheduled yet, in",
    "scheduled": "scheduled in",
    "queued": "queued in",
    "up_for_reschedule": "has given its slot back, in",
}
_SOONEST = 10.0
"""Seconds. A task that is to run again before the scheduler has heard from the executor that its
process has ended is taken for one that was killed, and fails (Airflow 3.3.2). Hearing that takes a
busy scheduler some seconds."""


@dataclass(frozen=True, slots=True)
class RescheduleAt:
    """Come back at ``when``."""

    when: dt.datetime


@dataclass(frozen=True, slots=True)
class TimeIsUp:
    """The gang's own time is over."""


def missing(
    node: int, min_nodes: int, states: Mapping[int, str | None], *, host: int | None = None
) -> dict[int, str | None] | None:
    """The nodes that are not there, with their states, if too few are for ``node`` to have a job;
    else None.

    ``host`` is the node that no other can do without, if there is one.
    """
    away = {
        number: state for number, state in states.items() if number != node and state not in _HERE
    }
    return away if host in away or len(states) - len(away) < min_nodes else None


def described(absent: Mapping[int, str | None], nodes: int, min_nodes: int, pool: str) -> str:
    """What is missing, for people."""
    there = nodes - len(absent)
    if there < min_nodes:
        text = f"only {there} of the {min_nodes} nodes that the job needs are there"
    else:
        text = f"{there} nodes are there, but not the one that hosts the job's store"
    return f"{text}; missing: {listed(absent, pool)}"


def listed(away: Mapping[int, str | None], pool: str) -> str:
    """``away`` for people: which nodes are not there, and what Airflow says of them."""
    return ", ".join(
        f"node {number} ({_WAITING[state]} pool {pool!r})"
        if state in _WAITING
        else f"node {number} ({state})"
        for number, state in away.items()
    )


def own_timeout(timeout: float, draw: float) -> float:
    """How long this node holds its slot, of the ``timeout`` seconds: up to a quarter less, by
    ``draw``, from 0 to 1.

    If nodes that hold each other up gave up all at once, those that come next would hold each other
    up as well.
    """
    return timeout * (1 - draw / 4)


def another_time(
    *,
    now: dt.datetime,
    began: dt.datetime,
    run_after: dt.datetime,
    timeout: float,
    held: float,
    draw: float,
) -> RescheduleAt | TimeIsUp:
    """Whether a node whose job did not form comes back, and when.

    ``began`` is when it was first started, ``timeout`` the seconds that its gang has for that,
    ``held`` those that it has just held its slot for. It stays away for as long as that at most, by
    ``draw``, from 0 to 1; nodes of an older DAG run (by ``run_after``) for less; but never for less
    than ten seconds.
    """
    left = timeout - (now - began).total_seconds()
    if left <= 0:
        return TimeIsUp()
    age = max(0.0, (now - run_after).total_seconds())
    longest = held * held / (held + age) if held > 0 else 0.0
    away = max(min(draw * longest, left), _SOONEST)
    return RescheduleAt(now + dt.timedelta(seconds=away))
