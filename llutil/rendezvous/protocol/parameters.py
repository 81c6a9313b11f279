"""What the caller decided: how many nodes, how long to wait, how often to try again.

This module may import nothing but the standard library and ``llutil.errors``.
"""

from __future__ import annotations

from dataclasses import dataclass

from llutil.errors import ConfigError, Problem

__all__ = ["ProtocolParameters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolParameters:
    """The protocol's parameters; all times are in seconds, on each node's own clock.

    ``last_call``: how long a round that has ``min_nodes`` waits for more. ``timeout``: how long a
    node waits for a round to begin. ``first_answer``: how long it waits for the first answer of a
    store, which may not be there at all, if that is less. ``lease_ttl``: how long a lease outlives
    its last renewal. ``max_restarts``: how many failures the job survives, all nodes together; None
    if somebody else counts them. ``hearing``: how long a round goes on after a failure that only
    tells of another's, so that its cause can be told. ``pause``: how long to leave a store alone
    that did not answer, before the same is asked again.

    :raises ConfigError: the values cannot work; the text names all that is wrong.
    """

    min_nodes: int
    max_nodes: int
    max_restarts: int | None = 3
    last_call: float = 30.0
    timeout: float = 900.0
    first_answer: float = 60.0
    lease_ttl: float = 10.0
    hearing: float = 2.0
    pause: float = 0.5

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        if not 1 <= self.min_nodes <= self.max_nodes:
            text = f"is {self.min_nodes}; wanted 1 to max_nodes, which is {self.max_nodes}"
            problems.append(Problem("min_nodes", text))
        if self.max_restarts is not None and self.max_restarts < 0:
            problems.append(Problem("max_restarts", f"is {self.max_restarts}; wanted 0 or more"))
        for name in ("timeout", "first_answer", "lease_ttl", "pause"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                text = f"is {value}; wanted a positive, finite number of seconds"
                problems.append(Problem(name, text))
        for name, value in (("last_call_timeout", self.last_call), ("hearing", self.hearing)):
            if not 0 <= value < float("inf"):
                problems.append(Problem(name, f"is {value}; wanted 0 or more seconds"))
        if problems:
            raise ConfigError(problems)

    @property
    def loss(self) -> float:
        """By when the record of a member that died just now is gone, in seconds, with half a lease
        for the store.

        ZooKeeper ends sessions at whole ticks, and no session lasts less than two of them; etcd
        looks for leases that are over twice a second, and whoever watches hears of it later still.
        """
        return 1.5 * self.lease_ttl

    def budget_left(self, restarts: int) -> bool:
        """Whether one more failure may be charged."""
        return self.max_restarts is None or restarts < self.max_restarts
