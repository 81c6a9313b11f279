"""The faults as values: whom one strikes, and when.

``str`` gives the text that ``llutil.chaos.fault_texts`` reads. A step is one of ``worker.step``: a
fault strikes when its rank has finished that step, or the first later one that the rank reports.
This module may import only the standard library and ``llutil.errors``: a DAG file imports it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import ClassVar

from llutil.errors import ConfigError, Problem

__all__ = [
    "FIELD",
    "KINDS",
    "Cut",
    "Fault",
    "Hang",
    "Kill",
    "OutOfMemory",
    "Preempt",
    "Slow",
    "cut",
    "hang",
    "kill",
    "oom",
    "preempt",
    "slow",
    "wanted",
]

FIELD = "chaos"
"""The field of a configuration that has faults."""

_LEAST = {"rank": 0, "node": 0, "step": 1, "steps": 0}
# Seconds: a day.
_LONGEST_CUT = 86400.0
_GREATEST_FACTOR = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    """What all faults have in common. ``word`` is the name by which people ask for one."""

    word: ClassVar[str]

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError([Problem(FIELD, f"has {self}: {text}") for text in problems])

    def __str__(self) -> str:
        told = [(one.name, getattr(self, one.name), one.default) for one in fields(self)]
        shown = [f"{name}={value}" for name, value, default in told if value != default]
        return f"{self.word}({', '.join(shown)})"

    def _problems(self) -> Iterator[str]:
        for one in fields(self):
            value: object = getattr(self, one.name)
            if one.name in _LEAST:
                least = _LEAST[one.name]
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    yield f"{one.name} is {value!r}; wanted a whole number of {least} or more"
                elif value >= 2**47:
                    yield f"{one.name} is {value}; wanted less than 2**47"
            elif isinstance(value, bool) or not isinstance(value, int | float):
                yield f"{one.name} is {value!r}; wanted a number"
            else:
                yield from self._problems_of_number(one.name, value)

    def _problems_of_number(self, name: str, value: float) -> Iterator[str]:
        if name == "seconds" and not 0 < value <= _LONGEST_CUT:
            yield f"seconds is {value}; wanted more than 0, and at most a day"
        if name == "factor" and not 1 < value <= _GREATEST_FACTOR:
            yield f"factor is {value}; wanted more than 1, and at most {_GREATEST_FACTOR:g}"
        if not math.isfinite(value):
            yield f"{name} is {value}; wanted a finite number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill(_Fault):
    """SIGKILL to a rank."""

    word: ClassVar[str] = "kill"
    rank: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang(_Fault):
    """A rank stays in ``worker.step`` for ever, and uses no processor."""

    word: ClassVar[str] = "hang"
    rank: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory(_Fault):
    """An allocation of a rank fails: ``worker.step`` raises what that raises."""

    word: ClassVar[str] = "oom"
    rank: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt(_Fault):
    """SIGTERM to the agent of a node, as from a platform that takes the node away."""

    word: ClassVar[str] = "preempt"
    node: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(_Fault):
    """A node does not reach the store of its rendezvous for so many ``seconds``."""

    word: ClassVar[str] = "cut"
    node: int
    seconds: float
    step: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(_Fault):
    """A rank takes ``factor`` times as long for a step, from ``step`` on: for so many ``steps``, or
    to the end if that is 0. It is no event: also after a restart the rank is slow.
    """

    word: ClassVar[str] = "slow"
    rank: int
    factor: float
    step: int = 1
    steps: int = 0


Fault = Kill | Hang | OutOfMemory | Preempt | Cut | Slow

KINDS: dict[str, type[Fault]] = {
    kind.word: kind for kind in (Kill, Preempt, Hang, OutOfMemory, Cut, Slow)
}
"""The kinds of faults, by the names by which people ask for them."""


def kill(*, rank: int, step: int) -> Kill:
    """SIGKILL to ``rank`` when it has finished ``step``."""
    return Kill(rank=rank, step=step)


def preempt(*, node: int, step: int) -> Preempt:
    """SIGTERM to the agent of ``node`` when its first rank has finished ``step``."""
    return Preempt(node=node, step=step)


def hang(*, rank: int, step: int) -> Hang:
    """``rank`` stays in ``worker.step`` for ever when it has finished ``step``."""
    return Hang(rank=rank, step=step)


def oom(*, rank: int, step: int) -> OutOfMemory:
    """``rank`` runs out of memory when it has finished ``step``."""
    return OutOfMemory(rank=rank, step=step)


def cut(*, node: int, seconds: float, step: int = 1) -> Cut:
    """``node`` does not reach its store for so many ``seconds`` from when its first rank has
    finished ``step``.
    """
    return Cut(node=node, seconds=seconds, step=step)


def slow(*, rank: int, factor: float, step: int = 1, steps: int = 0) -> Slow:
    """``rank`` takes ``factor`` times as long for a step, from ``step`` on: for so many ``steps``,
    or to the end if that is 0.
    """
    return Slow(rank=rank, factor=factor, step=step, steps=steps)


def wanted(kind: type[Fault]) -> str:
    """How a fault of this kind is asked for, as ``kill(rank=..., step=...)``."""
    parts = [
        f"{one.name}=..." if one.default is MISSING else f"{one.name}={one.default}"
        for one in fields(kind)
    ]
    return f"{kind.word}({', '.join(parts)})"
