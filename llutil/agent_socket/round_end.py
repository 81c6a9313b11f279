"""How a round ended on a node, as a value that an agent tells whoever watches its job.

This module may import only the standard library and ``llutil.failure``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llutil.failure import JobFailure

__all__ = ["RankEnd", "RoundEnd", "RoundEndKind"]


class RoundEndKind(StrEnum):
    """Why the ranks of a round ended on a node."""

    SUCCESS = "success"
    """All ranks of the node did their work."""
    FAILURE = "failure"
    """A rank failed, here or on another node."""
    LOST = "lost"
    """A node went away, or this one lost the store that nodes agree through."""
    MEMBERSHIP = "membership"
    """Nodes came that the next round lets in."""
    STOP = "stop"
    """Somebody asked the whole job to stop."""
    SIGNAL = "signal"
    """A signal asked this node alone to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnd:
    """A rank that failed. ``status`` is its exit status, negative for a signal; ``culprit`` says
    that its failure is the one which ended the round.
    """

    rank: int
    host: str
    status: int
    why: str
    culprit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEnd:
    """How the last round ended on one node. ``why`` is one line for people.

    ``failure`` is what went wrong, if a rank of this node failed by itself, and ``ranks`` are then
    those that did. A second value for the same round knows more than the first: an empty
    ``failure`` of it says nothing new.
    """

    kind: RoundEndKind
    why: str = ""
    failure: JobFailure | None = None
    ranks: tuple[RankEnd, ...] = ()
