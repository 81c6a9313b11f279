"""The words of progress: where ranks are, how fast they are, and how long the rest takes.

This module may import only the standard library and its own room.
"""

from __future__ import annotations

from collections.abc import Mapping

from llutil.progress.pace import Steps, pace

__all__ = ["Steps", "duration", "metrics_text", "speed", "summary"]

# Up to so many ranks are listed one by one.
_LISTED_RANKS = 4


def summary(ranks: Steps) -> str:
    """The step of each rank if there are few; else of the slowest and the fastest."""
    if len(ranks) > _LISTED_RANKS:
        in_order = sorted(ranks, key=lambda rank: (ranks[rank][0], rank))
        slowest, fastest = (_one(rank, *ranks[rank]) for rank in (in_order[0], in_order[-1]))
        return f"progress of {len(ranks)} ranks: slowest {slowest}, fastest {fastest}"
    return "progress: " + ", ".join(_one(rank, *steps) for rank, steps in sorted(ranks.items()))


def speed(ranks: Steps, now: float, before: float, steps: Steps) -> str:
    """The rate of the slowest rank since ``before``, when it had made ``steps``, and the time left;
    empty if that is not known, as after a restart.
    """
    found = pace(ranks, now - before, steps)
    if found is None:
        return ""
    rate, left = found.rate, found.seconds_left
    text = f"; {rate:.3g} steps/s" if rate >= 1 else f"; {1 / rate:.3g} s a step"
    return text if left is None else f"{text}, {duration(left)} left"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """The metrics of one rank, in the order in which it first reported them; empty without any."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    return f"; {values}" if values else ""


def duration(seconds: float) -> str:
    """``seconds`` in the two largest units that are not zero, as ``2 h 5 min``."""
    rest = max(1, round(seconds))
    parts: list[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
    return " ".join(filter(None, parts[:2]))


def _one(rank: int, step: int, total: int) -> str:
    if not total:
        return f"rank {rank} {step}"
    return f"rank {rank} {step}/{total} ({100 * step // total} %)"
