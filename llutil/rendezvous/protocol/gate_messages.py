"""What a node's machine, its driver and its agent tell each other so that ranks agree on a step.

The agent makes a wish known (``WishMade``). Every agent of the round is then told to raise a gate
(``RaiseGate``), and says how far its ranks have come (``GateRaised``); at last it is told what is
done at which step (``OpenGate``). It is told so for every gate that it raised, after a limited time
in any case, unless its workers are to stop before: ``StopWorkers`` ends all gates of its round.
These names are in ``instructions`` and ``observations`` too. This module may import nothing but the
standard library and the room's records.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.rendezvous.protocol.gate_records import OPPOSITES, Gate, GateAnswer, Wish, WishKind
from llutil.rendezvous.protocol.record_base import Stage

__all__ = [
    "AnswersSeen",
    "CheckpointSaved",
    "DeleteGates",
    "GateRaised",
    "OpenGate",
    "RaiseGate",
    "RefuseWish",
    "WatchAnswers",
    "WishMade",
]

# Instructions.


@dataclass(frozen=True, slots=True)
class RaiseGate:
    """Hold each rank of this node that comes to the end of a step from now on; ``GateRaised``."""

    gate: Gate
    why: str


@dataclass(frozen=True, slots=True)
class OpenGate:
    """Hold no rank for the gate ``number`` any more. Ranks do ``kinds`` when they have finished
    ``step``; without kinds they do nothing, and ``why`` says why not.

    An earlier gate's kinds stay to be done at their own step, which is never a greater one. Pauses
    of gates with a smaller number than ``resumed`` are over. ``debugged``: a rank of the round is
    debugged, and others wait for it. ``preempted``: the platform asked, and the round ends soon. So
    a stop is no success, and ranks that have saved are held until then, for a limited time.
    ``stacks``: the newest gate of the round that asked for the stacks of all ranks, or 0. What was
    opened stays open: a second ``OpenGate`` of a number tells of what needs no step.
    """

    stage: Stage
    number: int
    kinds: tuple[WishKind, ...]
    step: int | None
    resumed: int
    debugged: bool
    preempted: bool
    why: str
    stacks: int = 0


@dataclass(frozen=True, slots=True)
class RefuseWish:
    """No gate comes of the node's own ``wish``, as far as this node knows."""

    wish: Wish
    why: str


@dataclass(frozen=True, slots=True)
class WatchAnswers:
    """Watch the answers at that gate instead of any other; ``AnswersSeen`` at once and on each
    change.
    """

    stage: Stage
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class DeleteGates:
    """Delete what nobody needs of the gates of that round up to ``number``, and watch their answers
    no more. ``kept`` is the number of the newest decision for a step, or 0. ``heard`` is that of
    the newest gate: the wishes that it says are heard are deleted, too. It may fail: what stays is
    deleted later, or with the round.
    """

    stage: Stage
    number: int
    kept: int
    heard: tuple[tuple[str, int], ...]
    why: str


# Observations.


@dataclass(frozen=True, slots=True)
class WishMade:
    """Somebody at this node wishes that all ranks of the running round do ``kinds`` at one step.

    ``preempted``: the platform asks, and the round ends soon after. It is answered by an
    ``OpenGate`` with these kinds, or with none, or by ``RefuseWish``. A wish ends with its round.
    Where ranks have ended before their round, only a refusal is told.

    :raises ValueError: ``kinds`` are none, or a pause and a resume, or another two opposites.
    """

    kinds: frozenset[WishKind]
    why: str
    preempted: bool = False

    def __post_init__(self) -> None:
        if not self.kinds or any(self.kinds.issuperset(pair) for pair in OPPOSITES):
            raise ValueError(
                f"a wish for {sorted(self.kinds)}; wanted one thing or more, and no two opposites, "
                "as a pause and a resume are"
            )


@dataclass(frozen=True, slots=True)
class GateRaised:
    """The gate is raised: no rank of this node begins a further step before it is opened.

    ``furthest`` is the greatest step that a rank of this node has begun, also one that has ended; a
    rank that was held, or is paused, at the end of a step has not begun the next. None: no rank
    ever said. ``refusal``: why its ranks cannot take part in this; then nothing is done by anybody.
    """

    stage: Stage
    number: int
    furthest: int | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """The ranks of this node are done with the checkpoint that they were to save at the step of
    the gate ``number``, and it is committed. With a ``failure`` it is not, and that is why: a rank
    could not save, or has ended before.

    The agent says it once for each ``OpenGate`` with CHECKPOINT in its kinds, in any round.
    """

    stage: Stage
    number: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class AnswersSeen:
    """The watch of the answers at one gate shows these."""

    stage: Stage
    number: int
    answers: tuple[GateAnswer, ...]
