"""How long each part of a stop may take. Every margin follows from a job's ``grace_period``.

A stop is a nest of waits. Ranks have the grace period. Their agent ends what is left of them,
leaves the ledger and tells how the job ended. Whoever waits for the agent has to wait longer than
that takes, or the job ends by force and nobody hears how it ended. So all of these numbers are
here, and a test holds that they nest::

    in order < ranks < agent < last resort < task < earlier try, pod

Every process of a job reads this module: a guardian, which has no site-packages, and the parser of
a DAG file too. It imports nothing, and it defines no dataclass, since that would import much.
"""

__all__ = [
    "DEFAULT_GRACE_PERIOD",
    "DEFAULT_RESTART_GRACE",
    "HELPER_ENDED",
    "KILLED",
    "LEDGER_CLOSED",
    "LEDGER_LEFT",
    "SUCCESS_NOTED",
    "StopBudget",
]

DEFAULT_GRACE_PERIOD = 30.0
"""Seconds of grace for ranks, if nobody says otherwise; torch's default too (2.13)."""

DEFAULT_RESTART_GRACE = 3.0
"""Seconds of grace for the other ranks of a round that has failed, if nobody says otherwise. It is
part of the grace period, never longer.
"""

KILLED = 10.0
"""Seconds for the kernel to end what was sent SIGKILL. It frees memory first, and it waits for a
disk or a device that does not answer.
"""

LEDGER_LEFT = 10.0
"""Seconds for a node to leave its ledger. What it could not end by then expires with its lease."""

LEDGER_CLOSED = 5.0
"""Seconds for the threads of a ledger, and of the rendezvous, to end once the ledger is closed."""

HELPER_ENDED = 2.5
"""Seconds for a fork server or a guardian to end by SIGKILL. They hold little memory."""

SUCCESS_NOTED = 5.0
"""Seconds after a stop for a job that has just succeeded to write that beside its checkpoints. Its
ranks have ended, and need none of their grace period any more.
"""

_HELPERS = 2
_SLACK = 5.0
"""Seconds by which who waits is more patient than what it waits for: for what a process does in
between, on a machine that has other things to do.
"""

_SIGNALLED = 5.0
"""Seconds of a grace period that ranks have after SIGTERM, if they did not end without it."""

_SETTLED = 5.0
"""Seconds that all the above takes if nothing is stuck: processes end at once, stores answer."""


class StopBudget:
    """Seconds after a job was asked to stop, until something has happened or is given up.

    ``grace_period``, in seconds, is how long ranks have until they get SIGKILL. ``LaunchConfig``
    and torch call it ``shutdown_timeout``.
    """

    __slots__ = ("grace_period",)

    def __init__(self, grace_period: float) -> None:
        self.grace_period = grace_period

    @property
    def in_order(self) -> float:
        """Ranks have come to the end of a step, saved and ended without a signal. Shorter than the
        grace period: a rank that gets the signal has the rest of it.
        """
        return self.grace_period - min(self.grace_period / 4, _SIGNALLED)

    @property
    def agent(self) -> float:
        """An agent whose main thread is not stuck has told how its job ended. Longer than the
        grace period, what the kernel needs for ranks, leaving the ledger, and ending the helpers.
        """
        leaving = LEDGER_LEFT + LEDGER_CLOSED
        return self.grace_period + KILLED + leaving + _HELPERS * HELPER_ENDED

    @property
    def last_resort(self) -> float:
        """An agent that has not told it is stuck: a thread of its own ends the job by force.
        Longer than ``agent``.
        """
        return self.agent + _SLACK

    @property
    def task(self) -> float:
        """The task kills an agent that still runs. Longer than ``last_resort``, and than the end of
        all processes after that.
        """
        return self.last_resort + KILLED + _SLACK

    @property
    def earlier_try(self) -> float:
        """A next try kills what an earlier try's agent, and its task, have left. Longer than
        ``task``, and than the end of an agent that the task has killed, with its guardian's work.
        """
        return self.task + KILLED + _SLACK

    @property
    def pod(self) -> float:
        """Kubernetes kills the pod of a task. Longer than ``task``, than the end of an agent that
        the task has killed, and than the task's last words to Airflow.
        """
        return self.task + KILLED + _SLACK

    @property
    def settled(self) -> float:
        """All is over if nothing is stuck. A pod with less loses what ranks save."""
        return self.grace_period + _SETTLED
