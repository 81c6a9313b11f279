"""Small values of the rendezvous for tests: members, rounds and reports, with only what matters
spelled out.
"""

from __future__ import annotations

from typing import Any

from llutil.failure import Failure, FailureClass, JobFailure
from llutil.rendezvous.protocol.gate_records import (
    Gate,
    GateAnswer,
    GateDecision,
    Wish,
    WishKind,
)
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import (
    Assignment,
    Cause,
    Marker,
    Member,
    Report,
    ReportKind,
    Seat,
    Stage,
    Verdict,
)

__all__ = [
    "answer",
    "decision",
    "failure",
    "gate",
    "job_failure",
    "marker",
    "member",
    "report",
    "round_of",
    "rules",
    "seat",
    "verdict",
    "wish",
]


def rules(least: int = 1, most: int = 4, **others: Any) -> ProtocolParameters:
    """Rules with short, round times: a lease of 10 s, a last call of 30 s, a timeout of 900 s."""
    return ProtocolParameters(min_nodes=least, max_nodes=most, **others)


def member(name: str, **others: Any) -> Member:
    """The first identity of a node ``name``."""
    values: dict[str, Any] = {
        "node": f"{name}.1",
        "name": name,
        "host": name,
        "address": "10.0.0.1",
        "role": "trainer",
        "nproc": 1,
    }
    return Member(**(values | others))


def seat(name: str, **others: Any) -> Seat:
    """The seat of the first identity of a node ``name``."""
    values: dict[str, Any] = {
        "node": f"{name}.1",
        "name": name,
        "address": "10.0.0.1",
        "role": "trainer",
        "nproc": 1,
    }
    return Seat(**(values | others))


def round_of(names: str, stage: tuple[int, int] = (1, 1), **others: Any) -> Assignment:
    """A round whose members are the letters of ``names``, in that order of ranks; the first hosts
    its store.
    """
    generation, round_ = stage
    values: dict[str, Any] = {
        "generation": generation,
        "round": round_,
        "restarts": 0,
        "seats": tuple(seat(name) for name in names),
        "host": "10.0.0.1",
        "port": 29500,
        "by": f"{names[0]}.1",
    }
    return Assignment(**(values | others))


def verdict(cause: Cause, stage: tuple[int, int] = (1, 1), **others: Any) -> Verdict:
    """A verdict of node a."""
    generation, round_ = stage
    values: dict[str, Any] = {"final": False, "by": "a.1"}
    return Verdict(generation=generation, round=round_, cause=cause, **(values | others))


def marker(cause: Cause, stage: tuple[int, int] = (1, 1), **others: Any) -> Marker:
    """A marker of node a."""
    generation, round_ = stage
    return Marker(generation=generation, round=round_, cause=cause, **({"by": "a.1"} | others))


def report(name: str, say: ReportKind, stage: tuple[int, int] = (1, 1), **others: Any) -> Report:
    """What the first identity of node ``name`` says of a round."""
    generation, round_ = Stage(*stage)
    return Report(generation=generation, round=round_, node=f"{name}.1", say=say, **others)


def failure(**others: Any) -> Failure:
    """How rank 3, the second of node 1, failed."""
    values: dict[str, Any] = {
        "rank": 3,
        "local_rank": 1,
        "group_rank": 1,
        "label": "",
        "host": "far",
        "pid": 4711,
        "restart": 0,
        "max_restarts": 0,
        "exit_status": 1,
        "failure_class": FailureClass.USER_CODE,
        "reason": "ValueError: no such digit",
    }
    return Failure(**(values | others))


def job_failure(why: str = "boom", *, fatal: bool = False, **others: Any) -> JobFailure:
    """What went wrong; with fields of a rank's failure, that rank is told too."""
    if not others:
        return JobFailure(why=why, fatal=fatal)
    return JobFailure.of(failure(reason=why, **others), fatal=fatal)


def wish(name: str, number: int = 1, *kinds: str, **others: Any) -> Wish:
    """A wish of the first identity of node ``name``; for a checkpoint, unless others are given."""
    wanted = tuple(map(WishKind, kinds or ("checkpoint",)))
    values: dict[str, Any] = {"generation": 1, "round": 1, "node": f"{name}.1"}
    return Wish(number=number, kinds=wanted, **(values | others))


def gate(number: int = 1, *kinds: str, **others: Any) -> Gate:
    """A gate of node a in the first round; for a checkpoint, unless others are given."""
    wanted = tuple(map(WishKind, kinds or ("checkpoint",)))
    values: dict[str, Any] = {"generation": 1, "round": 1, "by": "a.1", "heard": (("a.1", number),)}
    return Gate(number=number, kinds=wanted, **(values | others))


def answer(name: str, furthest: int | None, number: int = 1, **others: Any) -> GateAnswer:
    """What the first identity of node ``name`` answers at a gate of the first round."""
    node = f"{name}.1"
    return GateAnswer(generation=1, round=1, number=number, node=node, furthest=furthest, **others)


def decision(step: int | None, number: int = 1, *kinds: str, **others: Any) -> GateDecision:
    """A decision of node a in the first round; without a step, nothing is done."""
    wanted = tuple(map(WishKind, kinds or (() if step is None else ("checkpoint",))))
    values: dict[str, Any] = {"generation": 1, "round": 1, "by": "a.1"}
    return GateDecision(number=number, step=step, kinds=wanted, **(values | others))
