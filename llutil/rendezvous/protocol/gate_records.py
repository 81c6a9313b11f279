"""What nodes write into the ledger so that all ranks of a round do something at one step.

Somebody at a node has a wish. The leader merges the open wishes into a gate. Each node raises it
for its ranks, and answers with the furthest step that one of them has begun. The leader decides for
the greatest answer, which no rank has finished; so every rank can do it there. A round's gates are
numbered from 1 on, and one is open at a time. This module may import nothing but the standard
library, msgspec and ``record_base``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from msgspec import structs

from llutil.rendezvous.protocol.record_base import Count, OfRound

__all__ = [
    "OPPOSITES",
    "Gate",
    "GateAnswer",
    "GateDecision",
    "Wish",
    "WishKind",
    "in_order",
    "in_words",
    "merged",
]


class WishKind(StrEnum):
    """What ranks are to do at a step.

    CHECKPOINT: save one together. STOP: end. PAUSE: stay there until a RESUME. DEBUGGER_START and
    DEBUGGER_END ask nothing of ranks: one is debugged from now on, so no node takes it for a hang
    that its own ranks wait. STACKS: each node shows the stacks of its ranks. What needs no step
    happens at once.
    """

    CHECKPOINT = "checkpoint", "save a checkpoint", True
    STOP = "stop", "stop", True
    PAUSE = "pause", "pause", True
    RESUME = "resume", "resume"
    DEBUGGER_START = "debugger_start", "have the watchdogs of all nodes wait for a debugger"
    DEBUGGER_END = "debugger_end", "have the watchdogs of all nodes go on"
    STACKS = "stacks", "show the stacks of all ranks"

    words: str
    """What is wished, as people say it."""
    needs_step: bool
    """Whether ranks have to agree on a step for it."""

    def __new__(cls, value: str, words: str, needs_step: bool = False) -> WishKind:
        """One kind; ``value`` is its name in records."""
        kind = str.__new__(cls, value)
        kind._value_, kind.words, kind.needs_step = value, words, needs_step
        return kind


OPPOSITES = (
    (WishKind.PAUSE, WishKind.RESUME),
    (WishKind.DEBUGGER_START, WishKind.DEBUGGER_END),
)
"""Pairs of which a wish has one at most."""


class Wish(OfRound, frozen=True, kw_only=True):
    """Somebody at ``node`` wishes that all ranks of the round do this at one step.

    ``number`` counts the node's wishes in the round, from 1 on. ``preempted``: the platform asks,
    and the round ends soon after. So a stop is no success, and ranks that have saved wait for the
    end of their round.
    """

    node: str
    number: Count
    kinds: tuple[WishKind, ...]
    preempted: bool = False
    why: str = ""


class Gate(OfRound, frozen=True, kw_only=True):
    """All nodes of the round are asked how far their ranks have come, and hold whoever comes to the
    end of a step until the decision.

    ``heard`` says for each node which of its wishes of this round are in this gate or an earlier
    one, by the number of its last: a leader that comes later knows by that what is still open.
    """

    number: Count
    kinds: tuple[WishKind, ...]
    by: str
    heard: tuple[tuple[str, Count], ...]
    preempted: bool = False
    why: str = ""

    @property
    def needs_step(self) -> bool:
        """Whether ranks have to agree on a step."""
        return any(kind.needs_step for kind in self.kinds)

    def has_heard(self, wish: Wish) -> bool:
        """Whether ``wish`` is in this gate or an earlier one."""
        return any(node == wish.node and wish.number <= last for node, last in self.heard)


class GateAnswer(OfRound, frozen=True, kw_only=True):
    """How far the ranks of ``node`` have come at the gate ``number``, which holds them.

    ``furthest`` is the greatest step that one of them has begun; None if none ever said. With a
    ``refusal``, this node's ranks cannot take part, and that is why.
    """

    number: Count
    node: str
    furthest: Count | None = None
    refusal: str = ""


class GateDecision(OfRound, frozen=True, kw_only=True):
    """What becomes of the gate ``number``: ranks do ``kinds`` when they have finished ``step``.

    Without kinds, nothing is done at a step, and ``why`` says why not. ``resumed`` is the number of
    the round's newest gate that was a resume, or 0: pauses of earlier gates are over. ``debugged``
    says whether a rank of the round is debugged, and ``stacks`` is the number of the round's newest
    gate that asked for stacks, or 0. Each decision says all of these, so no node can miss them.
    """

    number: Count
    kinds: tuple[WishKind, ...]
    by: str
    step: Count | None = None
    resumed: Count = 0
    debugged: bool = False
    preempted: bool = False
    stacks: Count = 0
    why: str = ""


def merged(wishes: Iterable[Wish]) -> Wish | None:
    """All of ``wishes`` in one, in the order in which they were made; None if there are none.

    Of two opposites, as a pause and a resume, the later one counts. A stop that somebody asks for
    is a success, even if the platform wants something too.
    """
    found: Wish | None = None
    for wish in wishes:
        if found is None:
            found = wish
            continue
        kinds = {*found.kinds, *wish.kinds}
        for one, other in (*OPPOSITES, *((b, a) for a, b in OPPOSITES)):
            if one in wish.kinds:
                kinds.discard(other)
        both = (found, wish)
        asked = any(WishKind.STOP in one.kinds and not one.preempted for one in both)
        found = structs.replace(
            wish,
            kinds=in_order(kinds),
            preempted=not asked and any(one.preempted for one in both),
            why="; ".join(dict.fromkeys(one.why for one in both if one.why)),
        )
    return found


def in_order(kinds: Iterable[WishKind]) -> tuple[WishKind, ...]:
    """These kinds, each once, in the order of ``WishKind``."""
    wanted = set(kinds)
    return tuple(kind for kind in WishKind if kind in wanted)


def in_words(kinds: Iterable[WishKind]) -> str:
    """These kinds, as people say them."""
    return " and ".join(kind.words for kind in in_order(kinds))
