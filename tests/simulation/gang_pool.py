"""Gangs in a pool that may be too small for them, in virtual time: nodes that Airflow starts in its
own order, starts that take long, slots, losses.

The world plays Airflow, the agents and the rendezvous. What a node decides is the provider's own
code: ``Decisions``. A node's states are those that Airflow shows. Whether a running one has joined
the rendezvous, only the world knows.
"""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

from airflow_provider.gang.reschedule import GiveSlotBack, KeepSlot, TimeIsUp
from airflow_provider.gang.siblings import GangDone, GangHopeless, outlook
from airflow_provider.gang.success_note import SuccessNote
from llutil.errors import RendezvousError, RendezvousTimeoutError, ServerLostError
from tests.simulation.gang_nodes import Broken, Decisions, Gang, Node

__all__ = ["World"]

_EPOCH = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
_CHECK = 10.0  # seconds between two idle checks
_HEARTBEAT = 300.0  # seconds after which Airflow notices that a task's process is gone
_LEASE = 10.0  # seconds after which the rendezvous does
_LAST_CALL = 30.0  # seconds that min_nodes wait for more
_LAUNCHES = 3  # of one try, if the server of the ledger is lost


class World:
    """Airflow, agents and the rendezvous. ``start`` draws the seconds until a node that runs has
    joined.
    """

    def __init__(
        self,
        rng: random.Random,
        slots: int,
        start: Callable[[random.Random], float],
        decisions: Decisions | None = None,
        *,
        by_run: bool = True,
    ) -> None:
        self.rng, self.slots, self.start, self.by_run = rng, slots, start, by_run
        self.decide = decisions or Decisions()
        self.now = 0.0
        self.gangs: list[Gang] = []
        self.longest_start = 0.0
        self._plans: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()
        self._awake = False

    def widen(self, slots: int) -> None:
        """Give the pool so many slots."""
        self.slots = slots
        self._wake_scheduler()

    @property
    def nodes(self) -> list[Node]:
        """All nodes, the gangs in the order of their runs."""
        return [node for gang in self.gangs for node in gang.nodes]

    def add(self, gang: Gang, *, at: float = 0.0, retries: int = 0) -> None:
        """Have Airflow create the run of ``gang``."""
        self.gangs.append(gang)
        gang.nodes = [Node(gang, number, retries=retries) for number in range(gang.size)]
        for node in gang.nodes:
            self.plan(at + self.rng.uniform(0, 2), self._set, node, "scheduled")

    def plan(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        """Do ``act`` in so many seconds."""
        heapq.heappush(self._plans, (self.now + seconds, next(self._count), act, args))

    def play(self, until: float) -> None:
        """Live until all nodes have ended.

        :raises Broken: a property does not hold.
        """
        while any(node.state not in {"success", "failed"} for node in self.nodes):
            if not self._plans or self._plans[0][0] > until:
                raise Broken(f"everybody comes to an end: not by {until:g} s")
            self.now, _, act, args = heapq.heappop(self._plans)
            act(*args)

    def lose(self, node: Node) -> None:
        """Its process dies without a word, if it has one. Airflow notices late."""
        if node.state == "running":
            node.life += 1
            self.plan(_LEASE, self._leave, node)
            self.plan(_HEARTBEAT, self._notice, node, node.life)

    # Airflow.

    def _set(self, node: Node, state: str) -> None:
        node.state = state
        self._wake_scheduler()

    def _wake_scheduler(self) -> None:
        if not self._awake:
            self._awake = True
            self.plan(self.rng.uniform(0.1, 1.5), self._schedule)

    def _schedule(self) -> None:
        self._awake = False
        taken = sum(node.state in {"queued", "running"} for node in self.nodes)
        waiting = [node for node in self.nodes if node.state == "scheduled"]
        if not self.by_run:  # runs without a logical date, or with the same
            waiting.sort(key=lambda node: node.number)
        for node in waiting[: max(0, self.slots - taken)]:
            self._set(node, "queued")
            self.plan(self.rng.uniform(0.2, 3), self._begin, node)

    def _notice(self, node: Node, life: int) -> None:
        if node.life == life and node.retries:
            node.retries -= 1
            node.first_reschedule, node.reschedules = None, 0
            self._set(node, "up_for_retry")
            self.plan(30.0, self._set, node, "scheduled")
        elif node.life == life:
            self._end(node, "failed")

    def _end(self, node: Node, state: str) -> None:
        node.life += 1
        self._leave(node)
        self._set(node, state)

    def _fail(self, node: Node, why: str) -> None:
        over = node.began if node.first_reschedule is None else node.first_reschedule
        late = self.now - over >= node.gang.gang_timeout
        if not late and all(other.state != "failed" for other in node.gang.nodes):
            raise Broken(f"no slow start fails a node: {node.gang.name}{node.number}, {why}")
        self._end(node, "failed")

    # A node's process.

    def _begin(self, node: Node) -> None:
        self._set(node, "running")
        node.life += 1
        node.began, node.launches = self.now, 1
        node.timeout = self.decide.slot_timeout(node.gang.timeout, self.rng.random())
        match outlook(node.gang.view(node)):
            case GangDone():
                self._end(node, "success")
            case GangHopeless(why):
                self._fail(node, why)
            case _:
                self._launch(node)

    def _launch(self, node: Node) -> None:
        seconds = self.start(self.rng)
        self.longest_start = max(self.longest_start, seconds)
        self.plan(seconds, self._wait, node, node.life)

    def _wait(self, node: Node, life: int) -> None:
        if node.life == life:
            node.joined, node.waits_since = True, self.now
            self.plan(_CHECK, self._check, node, life)
            self._await_round(node)
            self._gather(node.gang)

    def _await_round(self, node: Node) -> None:
        self.plan(node.timeout.started, self._give_up, node, node.life, node.waits_since)

    def _check(self, node: Node, life: int) -> None:
        if node.life != life:
            return
        self.plan(_CHECK, self._check, node, life)
        if node.waits_since is None:
            return
        found = self.decide.decide_slot(
            node.gang.view(node), self.now - node.waits_since, node.timeout
        )
        match found:
            case KeepSlot():
                pass
            case GangHopeless(why):
                self._fail(node, why)
            case GiveSlotBack():
                self._give_back(node)

    def _give_up(self, node: Node, life: int, since: float) -> None:
        if node.life == life and node.waits_since == since:
            self._failed(node, RendezvousTimeoutError("no round"))

    def _failed(self, node: Node, error: RendezvousError) -> None:
        if self.decide.after_failed_rendezvous(node.gang.view(node), error) is None:
            raise Broken(f"no slow start uses up a try: {node.gang.name}{node.number}, {error}")
        self._give_back(node)

    def _give_back(self, node: Node) -> None:
        node.life += 1
        self._leave(node)
        # Its process and its agent take a moment to end, and Airflow calls it running meanwhile.
        self.plan(self.rng.uniform(0.2, 5), self._given, node, node.life)

    def _given(self, node: Node, life: int) -> None:
        if node.life != life:
            return
        held = self.now - node.began
        # Of the gang's own timeout, whatever was decided: twice, and two minutes for a start.
        longest = node.gang.timeout + max(node.gang.timeout, 120.0)
        if held > node.launches * (longest + self.longest_start) + _CHECK + 10:
            raise Broken(f"a slot is given back in time: held for {held:g} s")
        began = node.began if node.first_reschedule is None else node.first_reschedule
        found = self.decide.next_attempt(
            now=_EPOCH + dt.timedelta(seconds=self.now),
            began=_EPOCH + dt.timedelta(seconds=began),
            gang=node.gang.name,
            timeout=node.gang.timeout,
            gang_timeout=node.gang.gang_timeout,
            attempts=node.reschedules,
        )
        if isinstance(found, TimeIsUp):
            self._fail(node, "its time is up")
            return
        if node.first_reschedule is None:
            node.first_reschedule = self.now
        node.reschedules += 1
        self._set(node, "up_for_reschedule")
        away = (found.when - _EPOCH).total_seconds() - self.now
        self.plan(away, self._set, node, "scheduled")

    # The rendezvous.

    def _gather(self, gang: Gang) -> None:
        ready = [node for node in gang.nodes if node.joined]
        gang.call += 1
        if gang.members or not (gang.server is None or gang.nodes[gang.server].joined):
            return
        if len(ready) == gang.size:
            self._seal(gang, gang.call)
        elif len(ready) >= gang.min_nodes:
            self.plan(_LAST_CALL, self._seal, gang, gang.call)

    def _seal(self, gang: Gang, call: int) -> None:
        if gang.call != call:
            return
        gang.members = [node for node in gang.nodes if node.joined]
        for node in gang.members:
            node.waits_since = None
        self.plan(gang.duration, self._finish, gang, list(gang.members))

    def _finish(self, gang: Gang, members: list[Node]) -> None:
        if gang.members != members:
            return
        gang.members = []
        for rank, node in enumerate(members):
            node.note = SuccessNote(
                node=node.number,
                nodes=gang.size,
                rerun_token="0@2026",
                ranks=(rank,),
                world_size=len(members),
            )
        for node in [node for node in gang.nodes if node.joined]:
            self._end(node, "success")

    def _leave(self, node: Node) -> None:
        if not node.joined:
            return
        gang = node.gang
        node.joined, node.waits_since = False, None
        if node in gang.members:
            others = [other for other in gang.members if other is not node]
            gang.members = []
            for other in others:
                other.waits_since = other.began = self.now
                self._await_round(other)
        if node.number == gang.server:
            self._lose_server(gang)
        self._gather(gang)

    def _lose_server(self, gang: Gang) -> None:
        """Each sibling's agent ends, and another launch waits for node 0's next try."""
        for sibling in [node for node in gang.nodes if node.joined]:
            sibling.joined, sibling.waits_since = False, None
            sibling.launches += 1
            sibling.life += 1
            if sibling.launches > _LAUNCHES:
                self._failed(sibling, ServerLostError("gone"))
            else:
                self._launch(sibling)
