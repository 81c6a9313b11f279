"""Drivers of the rendezvous in threads of one process, on one store in memory, and faults of that
store.

``Node`` stands for a node: a driver, and the agent's side of it, which a test plays. Nothing here
sleeps: a test waits for an instruction of the driver's. Faults are named, and done by a ledger of
their own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeVar

from llutil.failure import JobFailure
from llutil.ledgers.errors import LedgerGone, LedgerRefused, LedgerUnavailable
from llutil.ledgers.memory import MemoryLedger, MemorySession
from llutil.ledgers.memory_store import MemoryStore
from llutil.ledgers.protocol import CreateResult, Joined, Record
from llutil.rendezvous.driver.driver import AgentInstruction, Driver
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Assignment, Member

__all__ = ["FaultyLedger", "FaultySession", "MemoryRendezvous", "Node", "Port"]

RUN = RecordKeys("run")
_SOON = 10.0  # seconds within which an instruction must come
_MOST_OPERATIONS = 128  # etcd's limit for one transaction
E = TypeVar("E", bound=do.End)
O = TypeVar("O", bound=AgentInstruction)  # noqa: E741 - an instruction


@dataclass
class Port:
    """A round's store that is none, but for its address."""

    host: str = "10.0.0.1"
    port: int = field(default_factory=count(20001).__next__)
    closed: bool = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class FaultySession(MemorySession):
    """A session whose renewals can be held back, and whose transactions are as small as etcd's."""

    @property
    def gone(self) -> str:  # type: ignore[override]  # a session's own may be written
        assert isinstance(self._ledger, FaultyLedger)
        return self._ledger.gone

    @property
    def renewed_at(self) -> float:
        assert isinstance(self._ledger, FaultyLedger)
        held = self._ledger.held
        return time.monotonic() if held is None else held

    def release(self, *, deadline: float) -> None:
        assert isinstance(self._ledger, FaultyLedger)
        if self._ledger.keeps_sessions:
            raise LedgerRefused("the store keeps this session")
        super().release(deadline=deadline)

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        self._check_room()
        return super().join(folder, name, value, reads=reads, deadline=deadline)

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> CreateResult:
        self._check_room()
        return super().create(values, guard=guard, lease=lease, deadline=deadline)

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        self._check_room()
        return super().grant_lease(ttl, deadline=deadline)

    def _check_room(self) -> None:
        assert isinstance(self._ledger, FaultyLedger)
        self._ledger.check_room()

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        assert len(scopes) <= _MOST_OPERATIONS
        return super().delete(*scopes, guard=guard, deadline=deadline)


class FaultyLedger(MemoryLedger):
    """A ledger that can be ``away`` (no call is answered), ``full`` (nothing new is written; what
    is there is read, renewed and deleted, as in an etcd without space), ``refusing``, or
    ``hanging`` (until it is closed).

    One that ``keeps_sessions`` refuses to end them. ``held`` is what its sessions give as their
    last renewal; None for the present. ``gone`` is why it has gone for good (``go``).
    """

    def __init__(self, store: MemoryStore, on_change: Callable[[], None]) -> None:
        self.away = self.full = self.refusing = self.hanging = False
        self.keeps_sessions = False
        self.held: float | None = None
        self.gone = ""
        self.hung = threading.Event()
        self._let_go = threading.Event()
        super().__init__(store, on_change)

    def check(self, deadline: float | None = None) -> None:
        if deadline is not None:
            if self.hanging:
                self.hung.set()
                self._let_go.wait(deadline - time.monotonic())
            if self.gone:
                raise LedgerGone(self.gone)
            if self.away:
                raise LedgerUnavailable("the store is away")
            if self.refusing:
                raise LedgerRefused("the store refuses")
        super().check(deadline)

    def go(self, why: str) -> None:
        """Go for good: no call is answered any more, and its sessions say so."""
        self.gone, self.held = why, time.monotonic()
        self.on_change()

    def check_room(self) -> None:
        """:raises LedgerUnavailable: the store is full."""
        if self.full:
            raise LedgerUnavailable("the store has no space left")

    def open_session(self, ttl: float, *, deadline: float) -> MemorySession:
        self.check_room()
        session = super().open_session(ttl, deadline=deadline)
        return FaultySession(self, session.ttl, session.lease)

    def close(self) -> None:
        super().close()
        self._let_go.set()


class Node:
    """One node: its driver, and the agent's side, played by the test."""

    def __init__(self, rendezvous: MemoryRendezvous, name: str, **options: Any) -> None:
        fields = {"index": None, "token": "", "nproc": 1, "host": "here", "address": "10.0.0.1"}
        profile = {key: options.pop(key, value) for key, value in fields.items()}
        self.name = name
        self.rendezvous = rendezvous
        self.before: Callable[[FaultyLedger], None] = options.pop("before", lambda _: None)
        self.ports: list[Port] = []
        self.open_store: Callable[[], Port] = options.pop("open_store", Port)
        self.round: Assignment | None = None
        self._instructions: deque[AgentInstruction] = deque()
        self._ledger: FaultyLedger
        self._opened = threading.Event()
        settings = {
            "last_call": 0.0,
            "lease_ttl": 10.0,
            "timeout": 30.0,
            "retry_pause": 0.02,
            **options,
        }
        self.driver = Driver(
            ProtocolParameters(**settings),
            Member(node="", name=name, role="worker", label="", **profile),
            RUN,
            self._open_ledger,
            self._open_store,
        )

    def _open_ledger(self, on_change: Callable[[], None]) -> FaultyLedger:
        self._ledger = FaultyLedger(self.rendezvous.store, on_change)
        self.before(self._ledger)
        self._opened.set()
        return self._ledger

    @property
    def ledger(self) -> FaultyLedger:
        """The driver's ledger, which its thread opens."""
        assert self._opened.wait(_SOON), f"{self.name}: no ledger was opened"
        return self._ledger

    def _open_store(self) -> Port:
        self.ports.append(self.open_store())
        return self.ports[-1]

    def limit_wait(self, seconds: float) -> None:
        """From now on it waits for a round for so many ``seconds`` at most. For tests in which it
        must have come so far before, however slow the machine is.
        """
        state = self.driver._machine.state
        state.parameters = replace(state.parameters, timeout=seconds)
        self.driver._wake.set()

    def tell(self, observation: see.AgentObservation) -> None:
        self.driver.tell(observation)

    def peek(self, seconds: float) -> bool:
        """Whether an instruction comes within so many seconds."""
        deadline = time.monotonic() + seconds
        while not self._instructions and time.monotonic() < deadline:
            self.driver.wait(deadline)
            self._instructions.extend(self.driver.take_instructions())
        return bool(self._instructions)

    def refuses_orders(self) -> None:
        """Take what comes, until the driver raises."""
        while self.peek(_SOON):
            self._instructions.clear()

    def _next(self, kind: type[O]) -> O:
        assert self.peek(_SOON), f"{self.name}: no {kind.__name__} came"
        instruction = self._instructions.popleft()
        assert isinstance(instruction, kind), instruction
        return instruction

    def starts(self) -> Assignment:
        """Wait for the instruction to start workers; the round."""
        instruction = self._next(do.StartWorkers)
        self.round = instruction.assignment
        assert self.round.seat(instruction.node)
        return self.round

    def next_stops(self) -> bool:
        """Whether the next instruction, which is there, is to stop."""
        return isinstance(self._instructions[0], do.StopWorkers)

    def stops(self) -> do.StopWorkers:
        """Wait for the instruction to stop workers, and obey."""
        instruction = self._next(do.StopWorkers)
        self.tell(see.WorkersStopped(instruction.stage))
        return instruction

    def ends(self, kind: type[E]) -> E:
        """Wait for the end of this node's part, which must be of this kind."""
        end = self._next(do.Finish).end
        assert isinstance(end, kind), end
        return end

    def raises(self, furthest: int | None, refusal: str = "") -> do.RaiseGate:
        """Wait for the instruction to raise a gate, and answer."""
        instruction = self._next(do.RaiseGate)
        gate = instruction.gate
        self.tell(see.GateRaised(gate.stage, gate.number, furthest, refusal))
        return instruction

    def opens(self) -> do.OpenGate:
        """Wait for the instruction to open a gate."""
        return self._next(do.OpenGate)

    def succeeds(self) -> None:
        """Its workers did."""
        assert self.round is not None
        self.tell(see.WorkersEnded(self.round.stage, None))

    def fails(self, why: str = "no luck", *, fatal: bool = False) -> None:
        """Its workers did."""
        assert self.round is not None
        self.tell(see.WorkersEnded(self.round.stage, JobFailure(why=why, fatal=fatal)))

    def dies(self) -> None:
        """As when its process is killed: its session ends, and it says nothing."""
        assert self.driver.close(time.monotonic() + _SOON)


class MemoryRendezvous:
    """A store, and the nodes that meet there."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.nodes: list[Node] = []
        self.ledger = MemoryLedger(self.store, lambda: None)

    def node(self, name: str, *, start: bool = True, **options: Any) -> Node:
        """One more node; options are those of ``ProtocolParameters`` and of its member record."""
        node = Node(self, name, **options)
        self.nodes.append(node)
        if start:
            node.driver.start()
        return node

    def gang(self, *names: str, **options: Any) -> list[Node]:
        """Nodes that all have to be there before a round begins, and that have begun one."""
        size = {"min_nodes": len(names), "max_nodes": len(names)}
        nodes = [self.node(name, **{**size, **options}) for name in names]
        for node in nodes:
            node.starts()
        return nodes

    def again(self, *nodes: Node) -> Assignment:
        """Wait until all of these have started the same round, after what they were in before;
        those that are told to stop before it, obey. A round that does not have all of them may
        come first.
        """
        deadline = time.monotonic() + _SOON
        before = [node.round for node in nodes]
        while time.monotonic() < deadline:
            for node in nodes:
                if node.peek(0.01):
                    if node.next_stops():
                        node.stops()
                    else:
                        node.starts()
            agreed = nodes[0].round
            if agreed not in before and all(node.round == agreed for node in nodes):
                assert agreed is not None
                return agreed
        told = ", ".join(f"{node.name} is in {node.round}" for node in nodes)
        raise AssertionError(f"no common round: {told}")

    def keys(self, scope: str) -> list[str]:
        """What is there, without the run's own prefix."""
        view = self.ledger.read(scope, deadline=time.monotonic() + _SOON)
        return [one.key.removeprefix(RUN.root) for one in view.records]

    def write(self, key: str, value: bytes, *, leased: bool = False) -> None:
        """As another program does that uses the same store; under a lease of its own, if wanted."""
        with self.store.transaction() as transaction:
            lease = self.store.new_lease() if leased else ""
            transaction.put(self.ledger.namespace, {key: value}, lease)

    @contextmanager
    def open(self) -> Iterator[MemoryRendezvous]:
        """In the end all nodes are gone."""
        try:
            yield self
        finally:
            for node in self.nodes:
                node.ports = [port for port in node.ports if not port.closed]
                assert node.driver.close(time.monotonic() + _SOON)
                assert all(port.closed for port in node.ports)
            self.ledger.close()
            assert not self.store.ledgers
