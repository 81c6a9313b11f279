"""Jobs whose workers are the training of ``tests.support.training``."""

from __future__ import annotations

from typing import Any

from tests.integration.rendezvous.jobs import Agent, Job, until
from tests.support.training_ranks import Rank, last_round

__all__ = ["start", "trains"]


def start(
    job: Job,
    *names: str,
    lockstep: bool = True,
    training: str = "",
    args: Any = None,
    **config: Any,
) -> list[Agent]:
    """Nodes that train together, with a place for checkpoints; another ``training`` of these
    ``args`` if one is given.
    """
    options = {
        "script": training,
        "min_nodes": 1,
        "max_nodes": len(names),
        "checkpoint_path": str(job.folder / "checkpoints"),
        "rdzv_configs": {"last_call_timeout": 60},
        **config,
    }
    return [job.node(name, trains=args or {"lockstep": lockstep}, **options) for name in names]


def trains(job: Job, *names: str, after: int = 0) -> list[Rank]:
    """Wait for a round in which exactly these nodes train, and every rank has made ten steps; that
    is after the step ``after`` in all. Its ranks.
    """

    def complete() -> list[Rank]:
        last = last_round(job.folder)
        there = {one.node for one in last} == set(names) and len(last) == last[0].world
        far = all(len(one.steps) > 10 and one.steps[-1] > after for one in last)
        return last if there and far else []

    found: list[Rank] = until(f"a round of {', '.join(names)}", complete)
    return found
