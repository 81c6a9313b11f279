"""The words of progress: where ranks are, how fast they are, and how long the rest takes.

This module may import only the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Steps", "metrics_text", "speed", "summary"]

Steps = Mapping[int, tuple[int, int]]
"""``{rank: (step, total)}``; a total of 0 means that it is not known."""

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
    slowest = min(ranks, key=lambda rank: (ranks[rank][0], rank))
    step, total = ranks[slowest]
    made = step - steps.get(slowest, (step, 0))[0]
    if made <= 0 or now <= before:
        return ""
    rate = made / (now - before)
    text = f"; {rate:.3g} steps/s" if rate >= 1 else f"; {1 / rate:.3g} s a step"
    return f"{text}, {_duration((total - step) / rate)} left" if total > step else text


def metrics_text(metrics: Mapping[str, float]) -> str:
    """The metrics of one rank, in the order in which it first reported them; empty without any."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    return f"; {values}" if values else ""


def _duration(seconds: float) -> str:
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
