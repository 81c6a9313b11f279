"""What the caller decided: how many nodes, how long to wait, how often to try again.

This module may import nothing but the standard library, ``llutil.errors`` and
``llutil.time_budgets``.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.errors import ConfigError, Problem
from llutil.time_budgets import LEDGER_LEFT

__all__ = ["ProtocolParameters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolParameters:
    """The protocol's parameters; all times are in seconds, on each node's own clock.

    ``last_call``: how long a round that has ``min_nodes`` waits for more. ``timeout``: how long a
    node waits for a round to begin. ``first_answer``: how long it waits for the first answer of a
    store, if that is less than ``timeout``: the store may not exist at all. ``lease_ttl``: how long
    a lease outlives its last renewal. ``max_restarts``: how many failures the job survives, all
    nodes together; None if somebody else counts them. ``cause_wait``: how long a round goes on
    after a failure that only says that a peer went away, so that the peer can report the cause.
    ``unique_run``: nobody knows the run's id but this node, and nobody will use it again.
    ``report_limit``: how long a node tries to report a failure that no restart can mend, if the
    ledger does not take it. ``gate_timeout``: how long the leader waits for the nodes' answers when
    ranks are to agree on a step. ``saves_before_growth``: whether all ranks save a checkpoint
    before somebody new is let into a round that runs; ``growth_timeout``: how long that may take.
    ``retry_pause``: how long to wait before a request that the store did not answer is repeated.
    ``runs_again``: whether a node whose workers succeeded runs them again if the others have to;
    torch's own agent does not.

    :raises ConfigError: values are out of range; the text lists all of them.
    """

    min_nodes: int
    max_nodes: int
    max_restarts: int | None = 3
    last_call: float = 30.0
    timeout: float = 900.0
    first_answer: float = 60.0
    lease_ttl: float = 10.0
    cause_wait: float = 2.0
    report_limit: float = LEDGER_LEFT
    gate_timeout: float = 5.0
    saves_before_growth: bool = False
    growth_timeout: float = 60.0
    retry_pause: float = 0.5
    unique_run: bool = False
    runs_again: bool = True

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        if not 1 <= self.min_nodes <= self.max_nodes:
            text = f"is {self.min_nodes}; wanted 1 to max_nodes, which is {self.max_nodes}"
            problems.append(Problem("min_nodes", text))
        if self.max_restarts is not None and self.max_restarts < 0:
            problems.append(Problem("max_restarts", f"is {self.max_restarts}; wanted 0 or more"))
        for name in (
            "timeout",
            "first_answer",
            "lease_ttl",
            "report_limit",
            "gate_timeout",
            "growth_timeout",
            "retry_pause",
        ):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                text = f"is {value}; wanted a positive, finite number of seconds"
                problems.append(Problem(name, text))
        for name, value in (("last_call_timeout", self.last_call), ("cause_wait", self.cause_wait)):
            if not 0 <= value < float("inf"):
                problems.append(Problem(name, f"is {value}; wanted 0 or more seconds"))
        if problems:
            raise ConfigError(problems)

    @property
    def loss_known_after(self) -> float:
        """Seconds after which the record of a member that has just died is certainly gone: one
        lease, and half a lease for the store's delay.

        ZooKeeper ends sessions only at whole ticks, and a session lasts two ticks or more. etcd
        looks for expired leases twice a second. Watches tell of it later still.
        """
        return 1.5 * self.lease_ttl

    @property
    def gate_limit(self) -> float:
        """Seconds after which a node that knows of no decision lets its ranks pass a gate.

        A leader that decides for a step does so within ``gate_timeout``. So after this time none
        has, or the ledger cannot tell this node.
        """
        return 2 * self.gate_timeout + self.loss_known_after

    @property
    def growth_pause(self) -> float:
        """Seconds between two checkpoints for the sake of newcomers. It leaves who has to wait for
        that as much time again to be let in.
        """
        return self.growth_timeout / 2

    @property
    def saved_limit(self) -> float:
        """Seconds that ranks which have saved wait for the end of their round, which is about to
        come: as long as ranks of other nodes may save, and a while for a node that has to go. One
        that dies in that time is lost only after its lease.
        """
        return self.growth_timeout + 30.0

    def budget_left(self, restarts: int) -> bool:
        """Whether one more failure may be charged."""
        return self.max_restarts is None or restarts < self.max_restarts
