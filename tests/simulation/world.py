"""A world in one thread, on a clock that only its agenda moves. One seed decides everything that
happens in it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llutil.rendezvous.protocol.instructions import Instruction
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Member
from tests.simulation.host import Host
from tests.simulation.properties import DEADLINE, Properties
from tests.simulation.saves import Saves
from tests.simulation.steps import Steps
from tests.simulation.store import Store
from tests.simulation.work import Work

HORIZON = 1500.0
"""Virtual seconds after which a world that has not come to rest never will."""


@dataclass(frozen=True, slots=True)
class PlannedCrash:
    """A host crashes right before, or right after, the instruction that is ``due``.

    ``late``: a write that was sent right before the crash is on its way for long.
    """

    due: Callable[[Host, Instruction], bool]
    before: bool
    late: bool
    act: Callable[[Host], None]


class World:
    """Hosts, their store, their workers, and the agenda of what happens next."""

    def __init__(
        self,
        rules: ProtocolParameters,
        rng: random.Random,
        *,
        machine: type[Machine] = Machine,
        delay: float = 0.05,
        doubt: float = 0.0,
        lag: float = 0.5,
    ) -> None:
        """``delay``: the most a message or a watch takes. ``doubt``: how many writes get no answer,
        0 to 1.
        """
        self.rules = rules
        self.rng = rng
        self.random = rng.random
        self.machine = machine
        self.delay, self.doubt, self._lag = delay, doubt, lag
        self.now = 0.0
        self.trace: list[str] | None = None
        self.crash_due: PlannedCrash | None = None
        self.full = False
        """The store has no space left: it renews, reads and deletes, and takes no writes."""
        self.gone_rng = random.Random()
        """For what follows from the store's loss, so that other days do not depend on it."""
        self.torchrun = False
        """Whether agents are torch's own: who has succeeded, or failed for good, leaves."""
        self._agenda: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0
        self.properties = Properties(self)
        self.store = Store(self)
        self.work = Work(self)
        self.steps = Steps(self)
        self.saves = Saves(self)
        self.hosts: list[Host] = []

    def at(self, when: float, act: Callable[..., object], *args: Any) -> None:
        """Put something on the agenda."""
        self._count += 1
        heapq.heappush(self._agenda, (when, self._count, act, args))

    def run(self) -> None:
        """Go on until nothing more will happen, and then see that all is well."""
        agenda, pop = self._agenda, heapq.heappop
        until = self.now + HORIZON
        while agenda and agenda[0][0] <= until:
            self.now, _, act, args = pop(agenda)
            act(*args)
        self.properties.at_rest()

    def delayed(self) -> float:
        """How long a message takes."""
        return self.random() * self.delay

    def lag(self) -> float:
        """How late the store notices that a lease is over."""
        return self.random() * self._lag

    def note(self, who: str, what: object) -> None:
        """Write into the story, if one is told."""
        if self.trace is not None:
            self.trace.append(f"{self.now:9.3f} {who:8} {what}")

    def arrive(self, name: str, *, token: str = "", index: int | None = None) -> Host:
        """A node begins."""
        profile = Member(
            node="",
            name=name,
            host=name,
            address="10.0.0.1",
            role="trainer",
            nproc=1 + len(self.hosts) % 2,
            index=index,
            token=token,
        )
        host = Host(self, profile)
        self.hosts.append(host)
        if self.store.gone:
            host.lose_store()
        host.begin()
        return host

    def living(self) -> list[Host]:
        """Hosts that have neither crashed nor finished."""
        return [host for host in self.hosts if not host.dead and host.end is None]

    def make_room(self) -> None:
        """The store takes writes again; a node tries its own again some time later."""
        self.note("world", "== the store has room again")
        self.full = False
        for host in self.hosts:
            host.disturb(self.now + DEADLINE + self.rules.retry_pause)

    def lose_store(self) -> None:
        """The store goes for good, and with it all that it holds."""
        self.note("world", "== the store has gone for good")
        self.store.gone = True
        self.properties.hopeful = self.properties.calm = False
        for host in self.living():
            host.lose_store()
