"""How a node's part can end. Each end has a reason (``why``).

This module may import nothing but the standard library, ``llutil.failure`` and the room's records.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.records import Assignment, Report

__all__ = [
    "End",
    "Failed",
    "FinishedWell",
    "GaveUp",
    "Late",
    "Left",
    "Refused",
    "Stopped",
]


@dataclass(frozen=True, slots=True)
class FinishedWell:
    """All ranks of the job succeeded, this node's among them, in this round.

    ``recorded`` says whether the ledger holds that: a node that comes later reads it there.
    """

    assignment: Assignment
    why: str
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class Late:
    """The job succeeded without this node: its result is empty.

    ``took_part``: an earlier launch of this node had ranks in the job's last round.
    """

    why: str
    took_part: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The job has failed for good."""

    job_failure: JobFailure

    @property
    def why(self) -> str:
        """The failure's own reason."""
        return self.job_failure.why


@dataclass(frozen=True, slots=True)
class Stopped:
    """The job was asked to stop."""

    why: str


@dataclass(frozen=True, slots=True)
class Left:
    """This node was asked to leave, and did."""

    why: str


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No round began in time. A retry can help.

    ``ledger_away``: it was the ledger that did not answer for so long, rather than other nodes that
    did not come. ``gone``: it has gone for good, so a retry needs another one. ``outcome`` is how
    this node's own workers had ended, if the ledger took no word of that, or gave none back.
    """

    why: str
    outcome: Report | None = None
    ledger_away: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The nodes' configurations do not fit together. A retry cannot help."""

    why: str


End = FinishedWell | Late | Failed | Stopped | Left | GaveUp | Refused
