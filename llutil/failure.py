"""What went wrong in a job, as one value that is carried from a worker's agent to Airflow.

``JobFailure`` says why the job failed, of which class that is, and whether a restart can help. It
holds the ``Failure`` of one rank, if a rank failed. The agent of that rank makes both. The ledger
carries the value to the other nodes, and the agent's last message carries it to its task. The
retry policy decides by it.

A fact that is to be known of a failed rank is a column: a field of ``Failure`` with a default, and
a line of ``_COLUMNS`` if a report shows it. This module may import nothing but the standard
library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

__all__ = ["FINAL_EXCEPTIONS", "Failure", "FailureClass", "JobFailure", "first_failure"]

T = TypeVar("T")

_COLUMNS = {"failure class": "failure_class"}
"""What a report shows of a failed rank in a line of its own: the line's label, and the field."""


FINAL_EXCEPTIONS = ("AirflowSkipException", "AirflowFailException")
"""Exceptions of Airflow's by which the user's code says how its task ends. No restart follows."""


class FailureClass(StrEnum):
    """Why a job ended, in the words that a retry policy needs.

    A failed rank is classified by ``llutil.agent.failures.classify``, whose table says what belongs
    where and why.
    """

    INFRASTRUCTURE = "infrastructure"
    """The store, the network, a node, or whoever kills with SIGKILL."""
    PREEMPTION = "preemption"
    """Somebody asked for the end: a stop, or a signal that asks."""
    OUT_OF_MEMORY = "out of memory"
    """An allocation failed, or the kernel killed a rank and its memory cgroup counted that."""
    HANG = "hang"
    """A wait for other ranks ran into its timeout, a rank made no more progress, or did not end."""
    USER_CODE = "user code"
    """Exceptions, exit codes, and crashes of native code."""
    BAD_CONFIGURATION = "bad configuration"
    """The user's code never began."""
    RESULT = "result"
    """The job succeeded, but what a rank returned cannot be handed on. No rank fails by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How one rank failed.

    What its process shows comes first. ``exit_status`` is negative for a signal. ``reason`` is one
    line, ``trace`` the exception with its traceback or its whole message (may be empty), ``tail``
    the last lines of its standard error that ``trace`` does not hold. These texts are cut when they
    are made, so that they fit into any store and onto a screen. ``echo`` says that the rank only
    tells of a peer that went away: the cause is another rank's failure. ``final_exception`` is the
    one of ``FINAL_EXCEPTIONS`` that it raised, if it raised one or a subclass.

    What its agent knows follows. ``group_rank`` is its node's place in the round, ``label`` what
    people call the node (may be empty). ``restart`` of ``max_restarts`` had been used when it
    failed. ``step`` is the furthest step that any rank of its node had reported since its agent
    began, restarts included; 0 means that none was known to have made its first one.
    """

    rank: int
    local_rank: int
    pid: int
    exit_status: int
    failure_class: FailureClass
    reason: str
    trace: str = ""
    tail: tuple[str, ...] = ()
    echo: bool = False
    final_exception: str = ""
    group_rank: int = 0
    label: str = ""
    host: str = ""
    restart: int = 0
    max_restarts: int = 0
    step: int = 0

    @property
    def node(self) -> str:
        """The node in words."""
        return f"node {self.group_rank} {self.label!r}" if self.label else f"node {self.group_rank}"

    @property
    def place(self) -> str:
        """Whose failure it was, in one line."""
        return (
            f"rank {self.rank} (local rank {self.local_rank}) of {self.node} on {self.host}, "
            f"pid {self.pid}, after {self.restart} of {self.max_restarts} restarts"
        )

    @property
    def lines(self) -> list[str]:
        """What a report shows of it below its first line, which has the reason."""
        lines = [f"  {self.place}"]
        lines += [f"  {label}: {getattr(self, name)}" for label, name in _COLUMNS.items()]
        if self.trace:
            lines += ["", *self.trace.split("\n")]
        if self.tail:
            lines += ["", "the last lines of its standard error:"]
            lines += [f"  {line}" for line in self.tail]
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """What went wrong, as far as its author knows.

    ``why`` is one line. ``failure_class`` is user code if nobody knows better. ``fatal`` says that
    starting again cannot help. ``failure`` is that of the rank which failed first; None if no rank
    did, or its node did not tell.
    """

    why: str = ""
    failure_class: FailureClass = FailureClass.USER_CODE
    fatal: bool = False
    failure: Failure | None = None

    @classmethod
    def of(cls, failure: Failure, *, fatal: bool = False) -> JobFailure:
        """What went wrong if a rank failed like this."""
        return cls(
            why=f"rank {failure.rank}: {failure.reason}",
            failure_class=failure.failure_class,
            fatal=fatal,
            failure=failure,
        )

    @property
    def echo(self) -> bool:
        """Whether it only tells of a peer that went away."""
        return self.failure is not None and self.failure.echo


def first_failure(found: Iterable[T], told: Callable[[T], JobFailure]) -> T | None:
    """Which of ``found`` counts as the first failure; None if there is none.

    ``found`` is in the order in which the failures became known, and ``told`` gives what went wrong
    in each. One that no restart can mend goes before all others. An echo counts only if there is
    nothing else: a rank that lost its peer often says so before the peer's own end is seen.
    """
    return min(found, key=lambda one: (not told(one).fatal, told(one).echo), default=None)
