"""What a benchmark finds: figures of ours, each beside that of its peer in the same run.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Goal", "Measurement", "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """So many values of one thing, in the measurement's unit; the median is what tables show."""

    n: int
    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Sample:
        """The sample of these values, to four digits: more say nothing.

        :raises ValueError: there are none.
        """
        found = sorted(values)
        if not found:
            raise ValueError("a sample of no values")
        figures = (found[0], statistics.median(found), found[-1])
        return cls(len(found), *(float(f"{figure:.4g}") for figure in figures))


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is to be: ``ratio`` at least ``limit``, or ``ours``, or what ours has more than
    its peer (``difference``), at most that.
    """

    of: Literal["ratio", "ours", "difference"]
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One figure of a benchmark. ``name`` is known by its benchmark alone; ``case`` tells apart the
    same thing measured with other numbers of workers or nodes, and ``what`` says in words what was
    measured. Less is better, of everything.
    """

    name: str
    case: str = ""
    what: str
    unit: str
    ours: Sample
    peer: Sample | None = None
    peer_name: str = ""
    goal: Goal | None = None

    @property
    def key(self) -> str:
        """What it is called in its benchmark: ``cold.2``."""
        return f"{self.name}.{self.case}" if self.case else self.name

    @property
    def ratio(self) -> float | None:
        """How many times the peer's figure is ours; None without one, or if ours is nothing."""
        if self.peer is None or not self.ours.median:
            return None
        return self.peer.median / self.ours.median

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        match self.goal:
            case None:
                return None
            case Goal("ratio", limit):
                return (self.ratio or 0.0) >= limit
            case Goal("ours", limit):
                return self.ours.median <= limit
            case Goal("difference", limit):
                return self.ours.median - (self.peer.median if self.peer else 0.0) <= limit

    def form(self) -> dict[str, Any]:
        """It as JSON."""
        found: dict[str, Any] = {"what": self.what, "case": self.case, "unit": self.unit}
        found["ours"] = asdict(self.ours)
        if self.peer is not None:
            found["peer"] = {"name": self.peer_name, **asdict(self.peer)}
        if self.ratio is not None:
            found["ratio"] = float(f"{self.ratio:.4g}")
        if self.goal is not None:
            found["goal"] = {"of": self.goal.of, "limit": self.goal.limit, "met": self.is_met}
        return found

    @classmethod
    def read(cls, key: str, form: dict[str, Any]) -> Measurement:
        """It from its JSON."""
        case = form["case"]
        peer, goal = dict(form.get("peer", {})), form.get("goal")
        peer_name = peer.pop("name", "")
        return cls(
            name=key.removesuffix(f".{case}") if case else key,
            case=case,
            what=form["what"],
            unit=form["unit"],
            ours=Sample(**form["ours"]),
            peer=Sample(**peer) if peer else None,
            peer_name=peer_name,
            goal=Goal(goal["of"], goal["limit"]) if goal else None,
        )
