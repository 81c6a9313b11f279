"""What a leader knows of the growth of its round: whether somebody new could be let in, and what
became of the checkpoint that is asked for before that.

This module may import nothing but the standard library and the room's records.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.rendezvous.protocol.record_base import Stage

__all__ = ["GrowthPart"]


@dataclass(slots=True)
class GrowthPart:
    """The growth of the round ``stage``, which this node leads; None if it leads none. All times
    are of its own clock.
    """

    stage: Stage | None = None
    since: float | None = None
    """Since when somebody new could be let in; None if nobody could."""
    number: int = 0
    """The gate at whose step the ranks save for that; 0 if none was asked for yet."""
    asked_at: float = -float("inf")
    """When this node began to write that gate, or the last one that was for newcomers who have
    left.
    """
    became: str = ""
    """What became of the checkpoint of that gate, in words; empty as long as that is open."""
    stops: bool = False
    """Whether it was decided that the ranks stop."""
