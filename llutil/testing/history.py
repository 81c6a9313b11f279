"""What the ranks of a job did, as ``llutil.chaos.journal`` has written it down, and what is wrong
with that.

This module may import only the standard library and the values of ``llutil.chaos``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "RankHistory",
    "Round",
    "counted_samples",
    "problems_of_samples",
    "problems_of_steps",
    "rounds_in",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankHistory:
    """One process of a rank. ``samples`` are those of each step, as (epoch, samples). ``struck``
    are the faults that it made.
    """

    rank: int
    node: int
    steps: tuple[int, ...]
    samples: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]
    struck: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round, of ``world`` ranks. ``ranks`` are those that came to a step."""

    name: str
    world: int
    ranks: tuple[RankHistory, ...]

    @property
    def first(self) -> int:
        """The first step that it made."""
        return min(one.steps[0] for one in self.ranks)

    @property
    def last(self) -> int:
        """The furthest step that a rank made."""
        return max(one.steps[-1] for one in self.ranks)


def rounds_in(folder: Path) -> list[Round]:
    """The rounds in the order in which they began. One whose ranks made no step is not among
    them.
    """
    found: dict[str, tuple[int, list[RankHistory]]] = {}
    for path in sorted(folder.iterdir()):
        lines = path.read_bytes().splitlines(keepends=True)
        said = [json.loads(line) for line in lines if line.endswith(b"\n")]
        if not any("step" in one for one in said):
            continue
        head = said[0]
        _, ranks = found.setdefault(head["round"], (int(head["world"] or 1), []))
        ranks.append(_rank(int(head["rank"]), int(head["node"] or 0), said[1:]))
    return [
        Round(name=name, world=world, ranks=tuple(sorted(ranks, key=lambda one: one.rank)))
        for name, (world, ranks) in found.items()
    ]


def _rank(rank: int, node: int, said: Sequence[dict[str, object]]) -> RankHistory:
    steps: list[int] = []
    samples: list[tuple[tuple[int, tuple[int, ...]], ...]] = []
    struck: list[str] = []
    pending: list[tuple[int, tuple[int, ...]]] = []
    for one in said:
        match one:
            case {"struck": str(fault)}:
                struck.append(fault)
            case {"samples": list(some), "epoch": int(epoch)}:
                pending.append((epoch, tuple(some)))
            case {"step": int(step)}:
                steps.append(step)
                samples.append(tuple(pending))
                pending = []
            case _:
                raise ValueError(f"{one} is no line of a journal")
    return RankHistory(
        rank=rank, node=node, steps=tuple(steps), samples=tuple(samples), struck=tuple(struck)
    )


def problems_of_steps(rounds: Sequence[Round], steps: int, every: int | None) -> Iterator[str]:
    """What is wrong with the steps of a job that has ended well after ``steps`` of them, and saved
    after ``every`` ones.
    """
    if not rounds:
        yield "no rank called worker.step"
        return
    done = 0
    for number, one in enumerate(rounds, 1):
        where = f"round {number} of {len(rounds)}"
        begun = sorted({rank.steps[0] for rank in one.ranks})
        if len(begun) > 1:
            yield f"{where}: its ranks began at different steps: {begun}"
        if begun[-1] > done + 1:
            yield f"{where} began at step {begun[-1]} after step {done}: steps are lost"
        elif every is not None and begun[0] < done - every:
            yield (
                f"{where} began at step {begun[0]} after step {done}: more than checkpoint_every, "
                f"which is {every}, was done twice"
            )
        for rank in one.ranks:
            wanted = tuple(range(rank.steps[0], rank.steps[0] + len(rank.steps)))
            if rank.steps != wanted:
                yield f"{where}: rank {rank.rank} did not count its steps one by one: {rank.steps}"
        done = max(done, one.last)
    last = rounds[-1]
    ends = {rank.rank: rank.steps[-1] for rank in last.ranks}
    if ends != dict.fromkeys(range(last.world), steps):
        yield (
            f"the last steps of the job's {last.world} ranks are {ends}, by rank; wanted {steps} "
            "for each"
        )


def problems_of_samples(rounds: Sequence[Round]) -> Iterator[str]:
    """What is wrong with the samples that counted: of each epoch, each once. The last epoch may not
    be at its end.
    """
    epochs = counted_samples(rounds)
    everything = {sample for seen in epochs.values() for sample in seen}
    for epoch, seen in epochs.items():
        twice = sorted(sample for sample, count in seen.items() if count > 1)
        if twice:
            yield f"epoch {epoch}: {len(twice)} samples were trained on twice, as {twice[:5]}"
        missing = sorted(everything - seen.keys())
        if missing and epoch != max(epochs):
            yield f"epoch {epoch}: {len(missing)} samples were left out, as {missing[:5]}"


def counted_samples(rounds: Sequence[Round]) -> dict[int, Counter[int]]:
    """How often each sample was trained on, by epoch, in the steps that no later round did
    again.
    """
    found: dict[int, Counter[int]] = {}
    ends = [*(one.first - 1 for one in rounds[1:]), *(one.last for one in rounds[-1:])]
    for one, end in zip(rounds, ends, strict=True):
        for rank in one.ranks:
            for step, batches in zip(rank.steps, rank.samples, strict=True):
                if step <= end:
                    _count(found, batches)
    return {epoch: found[epoch] for epoch in sorted(found)}


def _count(found: dict[int, Counter[int]], batches: Iterable[tuple[int, tuple[int, ...]]]) -> None:
    for epoch, samples in batches:
        found.setdefault(epoch, Counter()).update(samples)
