"""The form of the key ``elastic``: the parts that a next try reads again, and the key's version.

docs/seeing-a-job.md describes all of it. This module may import only the standard library and
msgspec.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = [
    "ELASTIC",
    "NOTHING_EARLIER",
    "VERSION",
    "Checkpoints",
    "Committed",
    "Curves",
    "Earlier",
    "Metrics",
    "Point",
    "RoundNote",
    "read_earlier",
]

ELASTIC = "elastic"
"""The key with all that is known of a node and its job, for programs."""

VERSION = 1
"""It grows when a field changes so that an older reader would misread it."""

Point = tuple[int, int, float | str]
"""A step, the time in seconds since 1970, and the value; a text if that is no finite number."""

Metrics = Mapping[str, tuple[Point, ...]]
"""Curves by the names of their metrics."""


class RoundNote(msgspec.Struct, frozen=True, kw_only=True):
    """One round, as one node knows it. ``nodes`` is empty if it is not known who was in it."""

    try_number: int = msgspec.field(name="try")
    began: str
    round: int | None = None
    ended: str | None = None
    world_size: int = 0
    nodes: tuple[str, ...] = ()
    node: int | None = None
    first_step: int | None = None
    last_step: int | None = None
    end: str = ""
    why: str = ""


class Committed(msgspec.Struct, frozen=True):
    """A checkpoint that was committed."""

    step: int
    time: str


class Checkpoints(msgspec.Struct, frozen=True):
    """What is read again of the checkpoints."""

    committed: tuple[Committed, ...] = ()


class Curves(msgspec.Struct, frozen=True):
    """What is read again of the curves."""

    metrics: dict[str, tuple[Point, ...]] = {}


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier try of the same task has left. ``time`` is when it last wrote."""

    version: int
    time: str = ""
    succeeded: bool | None = None
    rounds: tuple[RoundNote, ...] = ()
    checkpoints: Checkpoints = Checkpoints()
    curves: Curves = Curves()


NOTHING_EARLIER = Earlier(version=VERSION)


def read_earlier(value: object) -> Earlier:
    """The ``value`` of the key, which an earlier try has written, or a person; None is no value.

    :raises ValueError: it is malformed, or of another version.
    """
    if value is None:
        return NOTHING_EARLIER
    version = value.get("version") if isinstance(value, dict) else None
    if version != VERSION:
        raise ValueError(f"its version is {version!r:.40}; wanted {VERSION}")
    try:
        return msgspec.convert(value, type=Earlier)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
