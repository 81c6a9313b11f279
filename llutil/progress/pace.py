"""How fast ranks are, and how long the rest takes, in numbers.

This module may import only the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Pace", "Steps", "pace"]

Steps = Mapping[int, tuple[int, int]]
"""``{rank: (step, total)}``; a total of 0 means that it is not known."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of the slowest rank: ``rate`` in steps a second, and ``seconds_left`` at that rate;
    None without a total, or behind it.
    """

    rate: float
    seconds_left: float | None


def pace(ranks: Steps, elapsed: float, before: Steps) -> Pace | None:
    """The pace over ``elapsed`` seconds, since ranks were where ``before`` says; None if that is
    not known, as after a restart.
    """
    slowest = min(ranks, key=lambda rank: (ranks[rank][0], rank))
    step, total = ranks[slowest]
    made = step - before.get(slowest, (step, 0))[0]
    if made <= 0 or elapsed <= 0:
        return None
    rate = made / elapsed
    return Pace(rate, (total - step) / rate if total > step else None)
