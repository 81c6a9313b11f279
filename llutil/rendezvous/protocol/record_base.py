"""What all records of the ledger are made of: a kind, and the round that they are about.

This module may import nothing but the standard library and msgspec.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

__all__ = ["Count", "Kind", "OfRound", "Stage"]

Count = Annotated[int, Meta(ge=0)]
"""A whole number from 0."""


class Stage(NamedTuple):
    """Which round of which generation. Stages are ordered. Round 0 is the time before a first
    round.
    """

    generation: int
    round: int

    def __str__(self) -> str:
        return f"round {self.round} of generation {self.generation}"


class Kind(Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A record of the ledger. In JSON, ``kind`` is the name of its class in lower case."""


class OfRound(Kind, frozen=True, kw_only=True):
    """A record about one round."""

    generation: Count
    round: Count

    @property
    def stage(self) -> Stage:
        """Which round it is about."""
        return Stage(self.generation, self.round)
