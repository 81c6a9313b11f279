"""What a soak does, by its seed: which faults strike when, and which jobs run. The same seed makes
the same plan. Who is struck is settled when a fault is due, among those who are there.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "ALLOWED",
    "LASTING",
    "STEP",
    "TRAINS",
    "Fault",
    "JobPlan",
    "Kind",
    "Outcome",
    "faults",
    "jobs",
]

STEP = 0.02
"""Seconds of a training's step."""
BATCH = 4
"""Samples of a rank in a step."""


class Kind(StrEnum):
    """What is done to whom."""

    KILL_RANK = "SIGKILL: rank"
    KILL_AGENT = "SIGKILL: agent"
    KILL_GUARDIAN = "SIGKILL: guardian"
    KILL_TASK = "SIGKILL: task process"
    KILL_SUPERVISOR = "SIGKILL: Celery worker's child"
    KILL_LEADER = "SIGKILL: store's leader"
    KILL_SCHEDULER = "SIGKILL: scheduler"
    KILL_API_SERVER = "SIGKILL: api-server"
    FREEZE_RANK = "SIGSTOP: rank"
    FREEZE_AGENT = "SIGSTOP: agent"
    FREEZE_MEMBER = "SIGSTOP: store's member"
    CUT_WORKER = "link down: worker's host"
    CUT_MEMBER = "link down: store's member"
    SILENCE_WORKER = "all frames lost: worker's host"
    SLOW_WORKER = "link slow and lossy: worker's host"
    SLOW_MEMBER = "link slow and lossy: store's member"
    FILL_CHECKPOINTS = "disk full: checkpoints"
    FILL_WORKER = "disk full: worker's files"


class Outcome(StrEnum):
    """What may become of a job that a fault has struck."""

    AS_PLANNED = "as if nothing had happened, within its retries"
    VALUES_LOST = "a gang that succeeded, and lost a node's agent or task before its values came"


_TAKES_A_TASK = {
    *(Kind.KILL_AGENT, Kind.KILL_TASK, Kind.KILL_SUPERVISOR, Kind.KILL_API_SERVER),
    *(Kind.FREEZE_AGENT, Kind.CUT_WORKER, Kind.SILENCE_WORKER, Kind.SLOW_WORKER),
}
ALLOWED = {
    kind: frozenset({Outcome.AS_PLANNED, *([Outcome.VALUES_LOST] if kind in _TAKES_A_TASK else [])})
    for kind in Kind
}
"""A job that trains succeeds, whatever strikes it, with each sample counted once. A job that has to
fail fails for its own reason, of its own class. No fault is an excuse. But where an agent
or a task is lost between the success of its ranks and the end of its own pushes, the node's next
launch fails, and says so: nobody else has what they returned.
"""

LASTING = {
    Kind.KILL_LEADER: (2.0, 6.0),
    Kind.FREEZE_RANK: (1.0, 6.0),
    Kind.FREEZE_AGENT: (1.0, 9.0),
    Kind.FREEZE_MEMBER: (1.0, 9.0),
    Kind.CUT_WORKER: (1.0, 9.0),
    Kind.CUT_MEMBER: (1.0, 9.0),
    Kind.SILENCE_WORKER: (1.0, 9.0),
    Kind.SLOW_WORKER: (3.0, 9.0),
    Kind.SLOW_MEMBER: (3.0, 9.0),
    Kind.FILL_CHECKPOINTS: (2.0, 6.0),
    Kind.FILL_WORKER: (2.0, 6.0),
}
"""How many seconds such a fault lasts. Leases last 5 s, so some outlast them; a rank hangs after
15 s, so none may be taken for that.
"""

_OF_STORES = {
    *(Kind.KILL_LEADER, Kind.FREEZE_MEMBER, Kind.CUT_MEMBER, Kind.SLOW_MEMBER),
}
_OFTEN = {
    Kind.KILL_RANK: 3,
    Kind.KILL_AGENT: 2,
    Kind.FREEZE_RANK: 2,
    Kind.FREEZE_AGENT: 2,
    Kind.SLOW_WORKER: 2,
}
"""How often a kind is in a bag of faults, if not once."""
_GAP = (2.5, 5.5)
_FIRST = 6.0

TRAINS = {"lockstep": 2, "elastic": 4, "single": 2}
"""The jobs that train, and their ranks."""
_FAIL = (
    *("fails_as_gang", "fails_by_exception", "fails_by_exit", "fails_by_memory", "fails_by_hang"),
    *("fails_by_result", "fails_by_configuration"),
)
_JOBS_OFTEN = {"lockstep": 4, "elastic": 4, "single": 3}
_TRAINING = (4.0, 9.0)
_BEFORE_FAILURE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that is due after so many seconds ``at``. ``pick``, from 0 to 1, chooses the victim
    among those that are there. It lasts so many ``seconds``, 0 for a kill.
    """

    number: int
    at: float
    kind: Kind
    pick: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """A job of a kind, which is the name of its DAG, and how many samples it has."""

    number: int
    kind: str
    samples: int

    @property
    def trains(self) -> bool:
        """Whether it is to succeed."""
        return self.kind in TRAINS


def faults(seed: int, seconds: float, *, store: bool) -> list[Fault]:
    """The faults of a soak of so many ``seconds``; ``store`` says whether there is a store beside
    the nodes.
    """
    chance = random.Random(f"faults {seed}")
    bag = [kind for kind in Kind if store or kind not in _OF_STORES]
    kinds = _from_bags([kind for kind in bag for _ in range(_OFTEN.get(kind, 1))], chance)
    found: list[Fault] = []
    at = _FIRST
    while at < seconds:
        kind = next(kinds)
        lasts = chance.uniform(*LASTING.get(kind, (0.0, 0.0)))
        found.append(
            Fault(number=len(found), at=at, kind=kind, pick=chance.random(), seconds=lasts)
        )
        at += chance.uniform(*_GAP)
    return found


def jobs(seed: int) -> Iterator[JobPlan]:
    """Jobs without end."""
    chance = random.Random(f"jobs {seed}")
    bag = [kind for kind in (*TRAINS, *_FAIL) for _ in range(_JOBS_OFTEN.get(kind, 1))]
    for number, kind in enumerate(_from_bags(bag, chance)):
        seconds = chance.uniform(*_TRAINING) if kind in TRAINS else _BEFORE_FAILURE
        ranks = TRAINS.get(kind, 2)
        yield JobPlan(number=number, kind=kind, samples=round(seconds / STEP) * ranks * BATCH)


def _from_bags(bag: list, chance: random.Random) -> Iterator:  # type: ignore[type-arg]
    """All of the bag in some order, again and again: so each comes soon, in a short soak too."""
    while True:
        order = [*bag]
        chance.shuffle(order)
        yield from order
