"""The messages of an agent that tell its task what happens to the job.

This module may import only the standard library, msgspec and the values of ``llutil.agent_socket``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llutil.agent_socket.messages import JobStatus
from llutil.agent_socket.round_end import RoundEnd

__all__ = [
    "JobEvent",
    "Measured",
    "NodeStatus",
    "Progress",
    "RoundBegan",
    "RoundEnded",
    "Saved",
    "Steered",
    "Stopped",
    "Tagged",
    "TimeSpent",
]


class Tagged(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """What all messages have in common: their JSON names their type."""


class RoundBegan(Tagged, frozen=True):
    """Agent → task: the workers of a round have started.

    ``ranks`` are those of this node, ``restart`` is the number of restarts so far. Without ranks
    and with a world size of 0, this node's workers have ended, and it waits for the next round.
    """

    restart: int
    world_size: int
    ranks: tuple[int, ...]


class RoundEnded(Tagged, frozen=True):
    """Agent → task: how the last round ended here. A second one for a round knows more."""

    end: RoundEnd


class NodeStatus(Tagged, frozen=True):
    """Agent → task: what the node does now. It comes when a round has begun or ended or something
    was asked, every 2 seconds if anything has changed, and every 10 seconds as a sign of life.
    """

    status: JobStatus


class TimeSpent(Tagged, frozen=True):
    """Agent → task, once: the job is over here after ``seconds``, as ``text`` says in words.

    ``training_share`` is the share of the time in steps that counted, 0 to 1; None if no rank
    reported a step. ``restarts`` are the rounds after the first one.
    """

    seconds: float
    training_share: float | None
    restarts: int
    text: str


class Progress(Tagged, frozen=True):
    """Agent → task, at most every half second: ``{rank: (step, total)}``; total 0 means unknown.

    ``metrics`` are those of rank 0, if it is here. Without ranks, nothing is shown for now.
    """

    ranks: Mapping[int, tuple[int, int]] = {}
    metrics: Mapping[str, float] = {}


class Saved(Tagged, frozen=True):
    """Agent → task: the checkpoint after ``step`` steps is committed.

    ``seconds`` is how long that took, to a quarter of a second; None if it was shorter. Once a job
    that keeps checkpoints has succeeded, its newest one is told again, with its folder ``path``: a
    path or a URI.
    """

    step: int
    seconds: float | None = None
    path: str = ""


class Measured(Tagged, frozen=True):
    """Agent → task: ``what`` took so many ``seconds`` on this node.

    ``what`` is "launch", "rendezvous" or "restart", see ``llutil.agent.metrics``.
    """

    what: str
    seconds: float


class Steered(Tagged, frozen=True):
    """Agent → task: something was asked of all ranks, or follows from it, as ``text`` says.

    ``now`` is what the job does from now on, in words; empty if it goes on as before.
    """

    text: str
    now: str = ""


class Stopped(Tagged, frozen=True):
    """Agent → task: the job was stopped after ``step``, as ``why`` says, and has succeeded."""

    step: int | None
    why: str


JobEvent = (
    RoundBegan
    | RoundEnded
    | NodeStatus
    | Measured
    | TimeSpent
    | Progress
    | Saved
    | Steered
    | Stopped
)
"""What happens to a job."""
