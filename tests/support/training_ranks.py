"""What the ranks of a training have written down (see ``training.py``), and what must hold for it.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["Rank", "check_history", "last_round", "ranks_of", "redone", "rounds_of", "seen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """What one rank of one round wrote down. ``wrong`` is what it found wrong with the checkpoint
    that it resumed from, or with its model. ``samples`` are those of each step, with their epoch.
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
        wrong=next((one["wrong"] for one in said if one.get("wrong")), ""),
        steps=tuple(one["step"] for one in steps),
        samples=tuple((one["epoch"], tuple(one["samples"])) for one in steps if "samples" in one),
        wrote=tuple(one["wrote"] for one in said if "wrote" in one),
        saved=tuple(one["saved"] for one in said if "saved" in one),
        stopped=next((one["stopped"] for one in said if "stopped" in one), None),
        returned=next((one["returned"] for one in said if "returned" in one), None),
    )


def rounds_of(ranks: Iterable[Rank]) -> dict[str, list[Rank]]:
    """The ranks of each round, by its name, in the order in which rounds began."""
    rounds: dict[str, list[Rank]] = defaultdict(list)
    for one in ranks:
        rounds[one.round].append(one)
    return dict(rounds)


def last_round(folder: Path) -> list[Rank]:
    """The ranks of the newest round; some of them may not have begun."""
    ranks = ranks_of(folder)
    return [one for one in ranks if one.round == ranks[-1].round]


def redone(ranks: Iterable[Rank], first: str, last: str) -> list[int]:
    """How many steps were done twice, for each round after ``first`` up to ``last``."""
    rounds = rounds_of(ranks)
    names = list(rounds)
    names = names[names.index(first) : names.index(last) + 1]
    done = [max(one.steps[-1:] or (one.resumed,) for one in rounds[name])[0] for name in names]
    resumed = [rounds[name][0].resumed for name in names]
    return [before - then for before, then in zip(done, resumed[1:], strict=False)]


def check_history(ranks: Sequence[Rank], most: int) -> None:
    """Check what must hold for any history of rounds, and that no round redoes more than ``most``
    steps of those before.
    """
    assert not [one.wrong for one in ranks if one.wrong]
    saved = done = 0
    for name, crew in rounds_of(ranks).items():
        (resumed,) = {one.resumed for one in crew}
        assert resumed >= saved, f"{name} resumed at {resumed}, and {saved} was committed"
        assert done - resumed <= most, f"{name} resumed at {resumed} after {done}"
        for one in crew:
            assert one.steps == tuple(range(resumed + 1, resumed + 1 + len(one.steps))), one
        saved = max(step for one in crew for step in (saved, *one.saved))
        done = max(step for one in crew for step in (resumed, *one.steps))


def seen(ranks: Iterable[Rank]) -> list[Counter[int]]:
    """How often committed steps saw each sample, for each epoch."""
    crews = list(rounds_of(ranks).values())
    # What the last round did after its last checkpoint would be done again.
    last = max(step for crew in crews for one in crew for step in one.saved)
    committed = [*(crew[0].resumed for crew in crews[1:]), last]
    epochs: dict[int, Counter[int]] = defaultdict(Counter)
    for crew, end in zip(crews, committed, strict=True):
        for one in crew:
            for step, (epoch, samples) in zip(one.steps, one.samples, strict=True):
                if step <= end:
                    epochs[epoch].update(samples)
    return [epochs[epoch] for epoch in sorted(epochs)]
