"""The workers of a world: they need each other, take their time, and fail when the script says so.

Workers of a round begin to train once all of its nodes have started theirs, as collectives force
them to; if one never does, they fail in the end. If a node's workers go away in the middle, most
others fail, some time later; the rest go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llutil.rendezvous.protocol.records import Assignment, Stage

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World


_HANG = 200.0
"""Seconds that workers wait for those of other nodes."""


@dataclass(slots=True)
class Round:
    """One round as its workers know it."""

    assignment: Assignment
    started: dict[str, Host] = field(default_factory=dict)
    training: dict[str, None] = field(default_factory=dict)
    """In order, since a set's order of texts differs from run to run."""


@dataclass(slots=True)
class Work:
    """The script: ``failures`` still to come; ``duration`` of a training in seconds, at the fastest
    node.

    The slowest takes ``1 + uneven`` times as long. ``fragile``: how many fail when a peer goes
    away, 0 to 1.
    """

    world: World
    duration: float = 4.0
    uneven: float = 0.3
    failures: int = 0
    fatal: bool = False
    fragile: float = 0.7
    slow_stop: float = 0.0
    rounds: dict[Stage, Round] = field(default_factory=dict)
    failed: int = 0

    def start(self, host: Host, node: str, assignment: Assignment) -> None:
        """The workers of ``node`` are there."""
        stage = assignment.stage
        current = self.rounds.get(stage)
        if current is None:
            current = self.rounds[stage] = Round(assignment)
            self.world.at(self.world.now + _HANG, self._time_out, current)
        current.started[node] = host
        current.training[node] = None
        if len(current.started) == len(assignment.seats):
            self._train(current)

    def _time_out(self, current: Round) -> None:
        """Workers that still wait for those of a node which never came fail, as collectives do."""
        if len(current.started) < len(current.assignment.seats):
            for node, host in current.started.items():
                self._end(current.assignment.stage, node, host, False, False, False)

    def _train(self, current: Round) -> None:
        world, stage = self.world, current.assignment.stage
        world.steps.begin(current)
        victim = None
        if self.failures and world.random() < 0.8:
            victim = world.rng.choice(current.assignment.nodes)
        for node, host in current.started.items():
            if node == victim:
                self.failures -= 1
                self.failed += 1
                when = world.now + world.random() * self.duration
                world.at(when, self._end, stage, node, host, False, self.fatal, False)
            else:
                when = world.now + self.duration * (1 + self.uneven * world.random())
                world.at(when, self._end, stage, node, host, True, False, False)

    def _end(
        self, stage: Stage, node: str, host: Host, succeeded: bool, fatal: bool, echo: bool
    ) -> None:
        current = self.rounds[stage]
        if node not in current.training or host.dead:
            return
        if host.paused:
            host.backlog.append(lambda: self._end(stage, node, host, succeeded, fatal, echo))
            return
        if succeeded and self.world.steps.holds(stage, node):
            again = (stage, node, host, succeeded, fatal, echo)
            self.world.at(self.world.now + 0.2, self._end, *again)
            return
        current.training.pop(node, None)
        host.workers_ended(stage, succeeded, fatal, echo)
        if not succeeded:
            self._shake(current)

    def succeed(self, stage: Stage, node: str, host: Host) -> None:
        """All ranks of ``node`` have stopped, as they were told."""
        self._end(stage, node, host, True, False, False)

    def gone(self, stage: Stage, node: str) -> None:
        """The workers of ``node`` are gone, before they ended by themselves or after."""
        current = self.rounds.get(stage)
        if current and node in current.training:
            current.training.pop(node, None)
            self._shake(current)

    def _shake(self, current: Round) -> None:
        world = self.world
        for node in tuple(current.training):
            if node in current.started and world.random() < self.fragile:
                when = world.now + 0.01 + world.random()
                stage, host = current.assignment.stage, current.started[node]
                echo = world.random() < 0.7  # not every library says what it failed of
                world.at(when, self._end, stage, node, host, False, False, echo)

    def stopping_time(self) -> float:
        """How long workers take to stop."""
        slow = self.slow_stop and self.world.random() < 0.3
        return self.slow_stop if slow else 0.02 + 0.3 * self.world.random()
