"""How the ranks of a job agree on the step at which they do something.

An agent asks an ``Agreement`` and goes on. What comes of it reaches ``Gates``, which the agent's
steering implements: raise a gate, open it, or nothing will come of the wish.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Protocol

from llutil.rendezvous.protocol.gate_records import WishKind

__all__ = ["Agreement", "Gates", "NoAgreement", "OneNodeAgreement"]

# Seconds for which a node that decides alone may hold a gate. It opens it at once.
_AT_ONCE = 10.0


class Agreement(Protocol):
    """Where this node's wishes go."""

    def wish(self, kinds: AbstractSet[WishKind], why: str, *, preempted: bool = False) -> None:
        """Have all ranks of the job do ``kinds`` at one step, if that is possible.

        ``preempted``: the platform asks, and the round ends soon after.
        """

    def checkpoint_over(self, number: int, *, saved: bool) -> None:
        """The ranks of this node are done with the checkpoint that gate ``number`` asked for."""


class Gates(Protocol):
    """What an agreement asks of this node."""

    def raise_gate(
        self, number: int, kinds: AbstractSet[WishKind], limit: float
    ) -> tuple[int | None, str]:
        """Hold ranks at the end of their step, for ``limit`` seconds at most. Returns the furthest
        step that one has begun, None if none calls ``worker.step``; and why they cannot be held.
        """

    def open_gate(
        self,
        number: int,
        kinds: AbstractSet[WishKind],
        step: int | None,
        resumed: int,
        why: str,
        *,
        debugged: bool,
        ends_within: float | None = None,
        stacks: int = 0,
    ) -> None:
        """Let ranks pass; they do ``kinds`` after ``step``. Pauses before ``resumed`` are over.

        ``debugged``: a rank of the job is debugged, maybe on another node. ``ends_within``: the
        round is to end within so many seconds, so ranks that have saved wait for that. ``stacks``:
        the number of the newest wish to see the stacks of all ranks, or 0.
        """

    def refuse(self, kinds: AbstractSet[WishKind], why: str) -> None:
        """Nothing comes of a wish of this node."""

    def some_ended(self) -> bool:
        """Whether a rank of this node has ended."""


class OneNodeAgreement:
    """The agreement of a job whose ranks are all on this node."""

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._number = self._resumed = self._step = self._stacks = 0
        self._debugged = False

    def wish(self, kinds: AbstractSet[WishKind], why: str, *, preempted: bool = False) -> None:
        """Decide at once."""
        del preempted  # no other node waits for this one's end
        self._number += 1
        number = self._number
        if WishKind.RESUME in kinds:
            self._resumed = number
        if kinds & {WishKind.DEBUGGER_START, WishKind.DEBUGGER_END}:
            self._debugged = WishKind.DEBUGGER_START in kinds
        if WishKind.STACKS in kinds:
            self._stacks = number
        left = {kind for kind in kinds if kind.needs_step}
        if not left:
            self._open(frozenset(), None, why)
            return
        furthest, refusal = self._gates.raise_gate(number, kinds, _AT_ONCE)
        if refusal:
            self._gates.refuse(kinds, refusal)
            return
        if WishKind.CHECKPOINT in left and self._gates.some_ended():
            left -= {WishKind.CHECKPOINT}
            why = f"{why}; no checkpoint, since a rank has ended"
        if furthest is None or not left:
            told = why if furthest is not None else "no rank calls step"
            self._open(frozenset(), None, told)
            return
        self._step = max(self._step, furthest)
        self._open(left, self._step, why)

    def _open(self, kinds: AbstractSet[WishKind], step: int | None, why: str) -> None:
        self._gates.open_gate(
            self._number,
            kinds,
            step,
            self._resumed,
            why,
            debugged=self._debugged,
            stacks=self._stacks,
        )

    def checkpoint_over(self, number: int, *, saved: bool) -> None:
        """Nobody else waits for it."""


class NoAgreement:
    """That of a job whose rendezvous carries no wishes to the other nodes."""

    def __init__(self, gates: Gates, backend: str) -> None:
        self._gates, self._backend = gates, backend

    def wish(self, kinds: AbstractSet[WishKind], why: str, *, preempted: bool = False) -> None:
        """Refuse it."""
        del why, preempted
        self._gates.refuse(
            kinds,
            f"torch's {self._backend} rendezvous cannot carry it to the other nodes; "
            "etcd, zeus-adapter and served can",
        )

    def checkpoint_over(self, number: int, *, saved: bool) -> None:
        """It asks for none."""
