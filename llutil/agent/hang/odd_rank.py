"""Finds the rank that the others wait for, from the steps and the stacks of a node's ranks.

The rank whose timeout runs out first is mostly a victim: it waits in a collective for one that
never comes. The odd one out is, in this order: one that does not wait for others while others do;
one whose step is behind; one whose stack differs from the stack of the others; the one that has
been silent for the longest time. This module is pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llutil.agent.hang.hang_watch import Suspicion
from llutil.agent.hang.stack_text import Stack, waits_for_ranks

__all__ = ["OddRank", "SeenRank", "hang_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRank:
    """One rank that runs. ``rank`` is its global number, ``step`` None if it has never reported.

    ``stack`` is None if it is not known; then ``unknown`` says why.
    """

    local_rank: int
    rank: int
    pid: int
    step: int | None
    heartbeat: int = 0
    stack: Stack | None = None
    unknown: str = ""

    @property
    def waits_in(self) -> str:
        """The call in which it waits for other ranks; "" if it does not, or that is not known."""
        return waits_for_ranks(self.stack) if self.stack else ""

    @property
    def acts_alone(self) -> bool:
        """Whether it is known to wait for no other rank."""
        return self.stack is not None and not self.waits_in


@dataclass(frozen=True, slots=True)
class OddRank:
    """The rank that the others wait for, and how it was told from them, in words.

    ``elsewhere`` says that every rank of this node waits for others, so that the cause is on
    another node.
    """

    rank: SeenRank
    why: str
    elsewhere: bool = False


def hang_of(suspicion: Suspicion, ranks: Sequence[SeenRank], *, one_node: bool) -> OddRank | None:
    """The odd rank of the hang; None if what is suspected may be no hang, or another node's.

    ``one_node`` says that all ranks of the job are on this node.
    """
    elsewhere = not one_node and all(one.waits_in for one in ranks)
    if not suspicion.certain:
        if elsewhere:
            return None
        if suspicion.only_idle and not _stands_still(suspicion, ranks, one_node=one_node):
            return None
    odd, why = _odd(ranks)
    return OddRank(odd, why, elsewhere)


def _stands_still(suspicion: Suspicion, ranks: Sequence[SeenRank], *, one_node: bool) -> bool:
    """Whether nothing that idle ranks may wait for goes on. A rank that works may be what they
    wait for, unless it only waits too, as NCCL does by asking again and again. If all of them wait,
    it must be for each other.
    """
    working = [one for one in ranks if one.local_rank not in suspicion.idle]
    if not all(one.waits_in for one in working):
        return False
    return one_node or any(one.acts_alone for one in ranks)


def _odd(ranks: Sequence[SeenRank]) -> tuple[SeenRank, str]:
    found = list(ranks)
    whys = []
    alone = [one for one in found if one.acts_alone]
    if alone and len(alone) < len(found) and any(one.waits_in for one in found):
        calls = sorted({one.waits_in for one in found if one.waits_in})
        whys.append(f"others wait for it in {', '.join(calls)}")
        found = alone
    steps = [one.step for one in found if one.step is not None]
    if steps and min(steps) < max(steps):
        whys.append(f"its step is {min(steps)}, and others have made step {max(steps)}")
        found = [one for one in found if one.step == min(steps)]
    stacks = Counter(one.stack.main for one in found if one.stack)
    if len(stacks) > 1:
        rare = min(stacks.values())
        unlike = [one for one in found if one.stack and stacks[one.stack.main] == rare]
        if len(unlike) < len(found):
            whys.append("its stack differs from the stack of the others")
            found = unlike
    if not whys and len(found) > 1:
        whys.append("it cannot be told from the others; it has been silent for the longest time")
    return min(found, key=lambda one: (not one.heartbeat, one.heartbeat)), "; ".join(whys)
