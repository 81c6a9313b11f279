"""Jobs whose workers are the training of ``training.py``, and what its ranks wrote down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.integration.rendezvous.jobs import Agent, Job, until

__all__ = ["Rank", "last_round", "ranks_of", "start", "trains"]


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
        ranks = ranks_of(job.folder)
        last = [one for one in ranks if one.round == ranks[-1].round]
        there = {one.node for one in last} == set(names) and len(last) == last[0].world
        far = all(len(one.steps) > 10 and one.steps[-1] > after for one in last)
        return last if there and far else []

    found: list[Rank] = until(f"a round of {', '.join(names)}", complete)
    return found


def last_round(job: Job) -> list[Rank]:
    ranks = ranks_of(job.folder)
    return [one for one in ranks if one.round == ranks[-1].round]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """What one rank of one round wrote down. ``wrong`` is what it found wrong with the checkpoint
    that it resumed from. ``samples`` are those of each step, with their epoch.
    """

    node: str
    rank: int
    world: int
    round: str
    page: str
    pid: int
    resumed: int
    wrong: str
    steps: tuple[int, ...]
    samples: tuple[tuple[int, tuple[int, ...]], ...]
    wrote: tuple[int, ...]
    """The steps of its checkpoints, written; ``saved`` are those that it saw committed."""
    saved: tuple[int, ...]
    stopped: int | None
    returned: int | None


def ranks_of(folder: Path) -> list[Rank]:
    """All ranks of all rounds so far, in the order in which they began."""
    paths = sorted(folder.glob("rank-*"), key=lambda path: int(path.name.split("-")[1]))
    ranks = [_read(path, path.stat().st_size) for path in paths]
    return [rank for rank in ranks if rank is not None]


@lru_cache(maxsize=4096)  # most of them have ended
def _read(path: Path, size: int) -> Rank | None:
    with path.open("rb") as file:
        lines = file.read(size).splitlines(keepends=True)
    # The last line of a rank that was killed may be cut short.
    said = [json.loads(line) for line in lines if line.endswith(b"\n")]
    if not said:
        return None
    first = said[0]
    steps = [one for one in said if "step" in one]
    return Rank(
        node=first["node"],
        rank=first["rank"],
        world=first["world"],
        round=first["round"],
        page=first["page"],
        pid=first["pid"],
        resumed=first["resumed"],
        wrong=first["wrong"],
        steps=tuple(one["step"] for one in steps),
        samples=tuple((one["epoch"], tuple(one["samples"])) for one in steps if "samples" in one),
        wrote=tuple(one["wrote"] for one in said if "wrote" in one),
        saved=tuple(one["saved"] for one in said if "saved" in one),
        stopped=next((one["stopped"] for one in said if "stopped" in one), None),
        returned=next((one["returned"] for one in said if "returned" in one), None),
    )
