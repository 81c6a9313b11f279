"""What one node knows of the gates of its round, beside the run's log.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llutil.rendezvous.protocol.gate_messages import CheckpointSaved
from llutil.rendezvous.protocol.gate_records import GateAnswer, Wish
from llutil.rendezvous.protocol.record_base import Stage

__all__ = ["GatePart", "OwnWish"]


@dataclass(frozen=True, slots=True)
class OwnWish:
    """A wish that was made at this node, at ``since`` by its own clock."""

    wish: Wish
    since: float


@dataclass(slots=True)
class GatePart:
    """The gates of the round ``stage``, in which this node started workers; None before the
    first.
    """

    stage: Stage | None = None
    wishes: tuple[OwnWish, ...] = ()
    """Wishes of this node that are in no gate yet, oldest first."""
    made: int = 0
    """How many wishes were made at this node in this round."""
    written: int = 0
    """The newest own wish that is in the ledger."""
    raised: int = 0
    """The newest gate that the agent knows."""
    raised_at: float = 0.0
    opened: int = 0
    """The newest gate that the agent was told to open. If that is less than ``raised``, the gate
    ``raised`` holds ranks.
    """
    resumed: int = 0
    """The newest resume that the agent was told of."""
    answer: GateAnswer | None = None
    """This node's answer at the newest gate that it raised."""
    answered: int = 0
    """The newest gate at which this node's answer is in the ledger."""
    saved: int = 0
    """The newest gate whose checkpoint this node's ranks have saved."""
    unsaved: CheckpointSaved | None = None
    """The newest word of the agent that they could not."""

    # What only the leader uses.
    sent: tuple[Stage, int] | None = None
    """The newest gate that this node wrote, as leader."""
    sent_at: float = 0.0
    """When its first attempt to write it began."""
    watched: tuple[Stage, int] | None = None
    """The gate whose answers this node watches."""
    answers: dict[str, GateAnswer] = field(default_factory=dict)
    """The answers at that gate, by node."""
    cleaned: tuple[Stage, int] | None = None
    """The newest gate up to which this node has deleted what is stale."""
    _seen: tuple[GateAnswer, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether a gate holds this node's ranks."""
        return self.raised > self.opened

    def watch(self, stage: Stage, number: int) -> None:
        """Begin to watch the answers at that gate."""
        self.watched, self.answers, self._seen = (stage, number), {}, ()

    def forget_watch(self) -> None:
        """The watch is over."""
        self.watched, self.answers, self._seen = None, {}, ()

    def note_answers(self, answers: tuple[GateAnswer, ...]) -> None:
        """Note what a view of the answers shows. Views only grow; what was noted costs nothing."""
        seen = self._seen
        new = answers[len(seen) :] if answers[: len(seen)] == seen else answers
        self._seen = answers
        for answer in new:
            self.answers.setdefault(answer.node, answer)
