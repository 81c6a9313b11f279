"""Faults that a seed chooses: the same seed gives the same faults, on every node and host.

This module may import only the standard library, ``llutil.errors`` and the values beside it: a DAG
file imports it.
"""

from __future__ import annotations

import random
from collections.abc import Collection

from llutil.chaos.faults import FIELD, KINDS, Cut, Fault, Preempt, Slow
from llutil.errors import ConfigError, Problem

__all__ = ["DEFAULT_KINDS", "MOST_FAULTS", "RANDOM", "random_faults"]

RANDOM = "random_faults"
"""The name by which people ask for them."""
DEFAULT_KINDS = ("kill", "oom", "slow")
"""What one node gets over within one launch, and without a hang timeout."""
MOST_FAULTS = 200
"""How many faults a job may have."""

# Seconds of a cut; the factor of a slow rank, and for how many steps.
_CUT = (1.0, 20.0)
_FACTOR, _SLOW_STEPS = (1.5, 4.0), 10


def random_faults(
    *,
    seed: int,
    ranks: int,
    steps: int,
    count: int = 3,
    nodes: int = 1,
    kinds: Collection[str] = DEFAULT_KINDS,
) -> tuple[Fault, ...]:
    """``count`` faults in the first ``steps`` steps of a job of so many ``ranks`` and ``nodes``.

    :raises ConfigError: a number is too small, or a kind is unknown.
    """
    numbers = {"ranks": ranks, "steps": steps, "count": count, "nodes": nodes}
    problems = [
        f"{name} is {value!r}; wanted a whole number of 1 or more"
        for name, value in numbers.items()
        if not _is_whole(value) or value < 1
    ]
    if not _is_whole(seed):
        problems.append(f"seed is {seed!r}; wanted a whole number")
    if not problems and count > MOST_FAULTS:
        problems.append(f"count is {count}; wanted at most {MOST_FAULTS}")
    unknown = [one for one in kinds if one not in KINDS]
    if unknown or not kinds:
        problems.append(f"kinds are {tuple(kinds)}; wanted some of {', '.join(KINDS)}")
    if problems:
        raise ConfigError([Problem(FIELD, f"has {RANDOM}(...): {text}") for text in problems])
    chance = random.Random(seed)  # noqa: S311 - no secret
    found = [
        _fault(chance, KINDS[chance.choice(list(kinds))], ranks, steps, nodes) for _ in range(count)
    ]
    return tuple(sorted(found, key=lambda one: one.step))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fault(chance: random.Random, kind: type[Fault], ranks: int, steps: int, nodes: int) -> Fault:
    rank, node, step = chance.randrange(ranks), chance.randrange(nodes), chance.randint(1, steps)
    if issubclass(kind, Preempt):
        return kind(node=node, step=step)
    if issubclass(kind, Cut):
        return kind(node=node, step=step, seconds=round(chance.uniform(*_CUT), 1))
    if issubclass(kind, Slow):
        factor = round(chance.uniform(*_FACTOR), 1)
        return kind(rank=rank, factor=factor, step=step, steps=_SLOW_STEPS)
    return kind(rank=rank, step=step)
