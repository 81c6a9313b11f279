"""Carries out what one node's machine says: the only clock, and the only thread, of a rendezvous.

Observations are gathered from the ledger's watches, the session and the agent; each is one step of the machine;
each instruction is carried out at once, requests with a deadline. What concerns workers goes to the agent as
orders, which it takes from a queue with a descriptor to wait on, or with ``wait``. Nothing is decided here.

The thread ends with the machine's ``Finish``, or with an error that no later try of the same can mend (the store
refuses us, a record is not ours); ``orders`` then raises it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from llutil.errors import LaunchError
from llutil.ledgers.errors import (
    LeaseGone,
    LedgerConflict,
    LedgerUnavailable,
    SessionLost,
)
from llutil.ledgers.protocol import Exists, Gone, Ledger, Session, SessionState, View, Watch
from llutil.ledgers.protocol import Record as Stored
from llutil.rendezvous import instructions as do
from llutil.rendezvous import observations as see
from llutil.rendezvous.codec import decode, decode_as, encode
from llutil.rendezvous.layout import Layout
from llutil.rendezvous.log import Log
from llutil.rendezvous.machine import Machine
from llutil.rendezvous.records import Assignment, Marker, Member, Record, Report, Stage, Verdict
from llutil.rendezvous.rules import Rules

__all__ = ["Driver", "Order", "Store"]

_log = logging.getLogger(__name__)

_GENERATION_TTL = 86400.0  # seconds that a generation's records outlive their last leader
_FOREVER = float("inf")
_LOG, _MEMBERS, _REPORTS, _PREDECESSOR = "log", "members", "reports", "predecessor"

Order = do.StartWorkers | do.StopWorkers | do.Finish
"""What the machine wants of the agent."""


class Store(Protocol):
    """A round's TCPStore, as far as the driver cares: where it is bound, and how to let it go."""

    host: str
    port: int

    def close(self) -> None:
        """Stop serving."""


class Driver:
    """One node's part in one run, on a thread of its own from ``start`` to the end.

    ``open_ledger`` gets the callback for changes. ``open_store`` binds a TCPStore on a port that the kernel chooses.
    """

    def __init__(
        self,
        rules: Rules,
        profile: Member,
        layout: Layout,
        open_ledger: Callable[[Callable[[], None]], Ledger],
        open_store: Callable[[], Store],
    ) -> None:
        self.change_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._machine = Machine(rules, profile)
        self._rules = rules
        self._layout = layout
        self._open_ledger = open_ledger
        self._open_store = open_store
        self._wake = threading.Event()
        self._inbox: deque[see.Observation] = deque()
        self._orders: deque[Order] = deque()
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llutil-rendezvous", daemon=True)
        # Used by the thread alone from here on.
        self._ledger: Ledger | None = None
        self._session: Session | None = None
        self._own: Stored | None = None
        self._renewed = 0.0
        self._lost_told = True
        self._until = 0.0
        self._retry = _FOREVER
        self._scopes: dict[str, str] = {}
        self._watches: dict[str, Watch] = {}
        self._views: dict[str, View | None] = {}
        self._reports_stage: Stage | None = None
        self._predecessor = ""
        self._written: set[str] = set()
        self._leases: dict[int, str] = {}
        self._keep: int | None = None
        self._stores: dict[Stage, Store] = {}

    # The agent's side: any thread.

    def start(self) -> None:
        """Begin. May be called once."""
        self._thread.start()

    def tell(self, observation: see.WorkersEnded | see.WorkersStopped | see.Asked) -> None:
        """Tell the machine what the agent's workers did, or what the agent was asked."""
        self._inbox.append(observation)
        self._wake.set()

    def orders(self) -> Iterator[Order]:
        """Take what the machine has wanted since the last call, in order.

        :raises LaunchError: the rendezvous failed, and nothing more will come.
        """
        with suppress(BlockingIOError):
            os.eventfd_read(self.change_fd)
        while self._orders:
            yield self._orders.popleft()
        if self._error is not None:
            raise self._error

    def join(self, deadline: float) -> bool:
        """Wait for the thread's end until ``deadline``; say whether it has ended."""
        return self._ended.wait(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Give back the descriptor. Only after the thread has ended."""
        os.close(self.change_fd)

    # The thread's side.

    def _run(self) -> None:
        try:
            self._ledger = self._open_ledger(self._wake.set)
            self._steps([see.Ticked()])
            while not self._machine.state.finished:
                self._wake.wait(
                    max(
                        0.0,
                        min(self._until, self._retry, 3600.0 + time.monotonic()) - time.monotonic(),
                    )
                )
                self._wake.clear()
                self._steps(self._gather())
        except Exception as error:  # noqa: BLE001 - the edge of the thread: the agent hears of it
            if not isinstance(error, LaunchError):
                _log.exception("the rendezvous failed")
            self._error = error
        finally:
            for store in self._stores.values():
                store.close()
            if self._ledger is not None:
                self._ledger.close()
            self._ended.set()
            os.eventfd_write(self.change_fd, 1)

    def _steps(self, observations: list[see.Observation]) -> None:
        """Step through ``observations`` and whatever answers come of them."""
        queue = deque(observations)
        while queue and not self._machine.state.finished:
            for instruction in self._machine.step(queue.popleft(), time.monotonic()):
                if isinstance(instruction, do.Wait):
                    self._until = instruction.until
                    continue
                _log.info("%s: %s", type(instruction).__name__, instruction.why)
                answer = self._carry_out(instruction)
                if answer is not None:
                    queue.append(answer)

    def _gather(self) -> list[see.Observation]:
        """What is to be seen now; ``Ticked`` if nothing is but the time."""
        seen: list[see.Observation] = []
        session = self._session
        if session is not None and not self._lost_told:
            if session.renewed > self._renewed:
                self._renewed = session.renewed
                seen.append(see.LeaseRenewed(self._renewed))
            if session.state is SessionState.LOST:
                seen.append(self._lose())
        if time.monotonic() >= self._retry:
            self._catch_up()
        for kind in tuple(self._watches):
            seen += self._look(kind)
        while self._inbox:
            seen.append(self._inbox.popleft())
        return seen or [see.Ticked()]

    def _lose(self) -> see.LeaseLost:
        """The session is over: what only its identity could see is not looked at any more."""
        self._lost_told = True
        self._own = None
        self._keep = None
        for kind in (_MEMBERS, _REPORTS, _PREDECESSOR):
            self._unwatch(kind)
        return see.LeaseLost(self._machine.state.node)

    # Watches.

    def _watch(self, kind: str, scope: str, since: View | None = None) -> None:
        """Keep a watch on ``scope``; if it cannot be opened now, it is tried again."""
        self._unwatch(kind)
        self._scopes[kind] = scope
        self._views[kind] = None
        try:
            assert self._ledger is not None
            self._watches[kind] = self._ledger.watch(scope, since=since, deadline=self._deadline())
        except LedgerUnavailable:
            self._again()
        self._wake.set()  # its first view is to be seen at once

    def _unwatch(self, kind: str) -> None:
        self._scopes.pop(kind, None)
        watch = self._watches.pop(kind, None)
        if watch is not None:
            watch.close()

    def _again(self) -> None:
        self._retry = time.monotonic() + self._rules.pause

    def _catch_up(self) -> None:
        """Do what could not be done when it was asked for."""
        self._retry = _FOREVER
        for kind, scope in tuple(self._scopes.items()):
            if kind not in self._watches:
                self._watch(kind, scope)
        if self._keep is not None:
            self._keep_generation(self._keep)

    def _look(self, kind: str) -> list[see.Observation]:
        """What the watch ``kind`` shows, if it is new."""
        view = self._watches[kind].view()
        if view is self._views[kind]:
            return []
        self._views[kind] = view
        match kind:
            case "log":
                return [see.LogSeen(self._log_in(view))]
            case "members":
                members = (decode_as(Member, one.key, one.value) for one in view.records)
                return [see.MembersSeen(tuple(members))]
            case "reports":
                assert self._reports_stage is not None
                return [see.ReportsSeen(self._reports_stage, _reports_in(view))]
            case _:
                if view.records:
                    return []
                self._unwatch(_PREDECESSOR)
                return [see.PredecessorGone(self._predecessor)]

    def _log_in(self, view: View) -> Log:
        """The log that ``view`` shows; the leases of its records are remembered by generation."""
        records: list[Record] = []
        for one in view.records:
            record = decode(one.key, one.value)
            records.append(record)
            if isinstance(record, Assignment | Verdict | Marker) and one.lease:
                self._leases[record.generation] = one.lease
        return Log().with_records(records)

    # Instructions.

    def _deadline(self) -> float:
        """When a request that gets no answer is given up: a lease's time later, it is known that something is wrong."""
        return time.monotonic() + self._rules.lease_ttl / 2

    def _carry_out(self, instruction: do.Instruction) -> see.Observation | None:
        match instruction:
            case (
                do.TakeLease()
                | do.Join()
                | do.ReadLog()
                | do.ReadReports()
                | do.Create()
                | do.ReadBack()
            ):
                return self._request(instruction)
            case do.WatchPredecessor(name=name):
                self._predecessor = name
                self._watch(_PREDECESSOR, self._layout.members + name)
            case do.WatchMembers():
                self._watch(_MEMBERS, self._layout.members)
            case do.WatchReports(stage=stage):
                self._reports_stage = stage
                self._watch(_REPORTS, self._layout.reports(stage))
            case do.KeepGeneration(generation=generation):
                self._keep_generation(generation)
            case do.Sweep(before=before):
                self._sweep(before)
            case do.OpenStore(stage=stage):
                store = self._stores[stage] = self._open_store()
                return see.StoreOpened(stage, store.host, store.port)
            case do.CloseStore(stage=stage):
                closed = self._stores.pop(stage, None)
                if closed is not None:
                    closed.close()
            case do.Leave():
                self._leave()
            case do.StartWorkers() | do.StopWorkers() | do.Finish():
                self._orders.append(instruction)
                os.eventfd_write(self.change_fd, 1)
            case do.Wait():
                pass
        return None

    def _request(self, request: do.Request) -> see.Observation:
        deadline = self._deadline()
        try:
            return self._answer(request, deadline)
        except LedgerUnavailable as error:
            _log.warning("%s: %s", type(request).__name__, error)
            return see.Unanswered(request.ticket)
        except SessionLost:
            return self._lose()

    def _answer(self, request: do.Request, deadline: float) -> see.Observation:
        ledger = self._ledger
        assert ledger is not None
        match request:
            case do.TakeLease(ticket=ticket):
                session = ledger.open_session(self._rules.lease_ttl, deadline=deadline)
                self._session, self._renewed, self._lost_told = session, session.renewed, False
                return see.LeaseTaken(ticket, session.renewed)
            case do.Join(ticket=ticket, member=member):
                return self._join(ticket, member, deadline)
            case do.ReadLog(ticket=ticket):
                view = ledger.read(self._layout.log, deadline=deadline)
                return see.LogRead(ticket, self._log_in(view))
            case do.ReadReports(ticket=ticket, stage=stage):
                view = ledger.read(self._layout.reports(stage), deadline=deadline)
                return see.ReportsRead(ticket, stage, _reports_in(view))
            case do.Create():
                return self._create(request, deadline)
            case do.ReadBack(ticket=ticket, record=record):
                key = self._layout.key(record)
                found = ledger.read(key, deadline=deadline).get(key)
                return see.Found(ticket, decode(found.key, found.value) if found else None)

    def _join(self, ticket: int, member: Member, deadline: float) -> see.Joined:
        assert self._session is not None
        layout = self._layout
        joined = self._session.join(
            layout.members,
            layout.name(member.node),
            encode(member),
            reads=(layout.log,),
            deadline=deadline,
        )
        self._own = joined.record
        log = joined.views[layout.log]
        if _LOG not in self._scopes:
            self._watch(_LOG, layout.log, since=log)
        older = (one for one in joined.members.records if one.created < joined.record.created)
        return see.Joined(ticket, tuple(one.name for one in older), self._log_in(log))

    def _create(self, request: do.Create, deadline: float) -> see.Observation:
        assert self._session is not None
        if self._own is None:
            return see.OwnRecordGone(request.ticket)
        generation = _generation(request.records[0])
        values = self._layout.values(request.records)
        try:
            lease = self._lease(generation, deadline)
            outcome = self._session.create(values, guard=self._own, lease=lease, deadline=deadline)
        except LeaseGone as error:
            _log.warning("the lease of generation %d is over: %s", generation, error)
            self._leases.pop(generation, None)
            return see.Unanswered(request.ticket)
        match outcome:
            case Exists(records=records):
                first = self._layout.key(request.records[0])
                there = next((one for one in records if one.key == first), records[0])
                return see.Existed(request.ticket, decode(there.key, there.value))
            case Gone():
                return see.OwnRecordGone(request.ticket)
            case _:
                self._written |= values.keys()
                return see.Created(request.ticket)

    def _lease(self, generation: int, deadline: float) -> str:
        """The lease that the generation's records hang on; taken by whoever writes the first of them."""
        assert self._session is not None
        if generation not in self._leases:
            self._leases[generation] = self._session.grant(_GENERATION_TTL, deadline=deadline)
        return self._leases[generation]

    def _keep_generation(self, generation: int) -> None:
        """Renew the generation's lease from now on. Best effort: it has a day, and is tried again."""
        self._keep = None
        lease = self._leases.get(generation)
        if self._session is None or lease is None:
            return
        try:
            self._session.adopt(lease, deadline=self._deadline())
        except LedgerUnavailable:
            self._keep = generation
            self._again()
        except (LeaseGone, SessionLost) as error:
            _log.warning("the lease of generation %d cannot be kept: %s", generation, error)

    def _sweep(self, before: Stage) -> None:
        view = self._views.get(_LOG)
        if self._session is None or self._own is None or view is None:
            return
        # What this node wrote itself may not have come back by its watch yet.
        keys = {one.key for one in view.records} | self._written
        scopes = self._layout.stale(
            (key for key in keys if key.startswith(self._layout.log)), before
        )
        if scopes:
            with suppress(LedgerUnavailable, SessionLost):  # what stays expires with its lease
                self._session.delete(*scopes, guard=self._own, deadline=self._deadline())

    def _leave(self) -> None:
        session, own = self._session, self._own
        if session is None:
            return
        # Best effort: what stays of this node goes with its lease.
        with suppress(LedgerUnavailable, SessionLost, LedgerConflict):
            if own is not None:
                session.leave(own, deadline=self._deadline())
        with suppress(LedgerUnavailable, SessionLost):
            session.release(deadline=self._deadline())
        self._own = None
        self._lost_told = True


def _reports_in(view: View) -> tuple[Report, ...]:
    return tuple(decode_as(Report, one.key, one.value) for one in view.records)


def _generation(record: Record) -> int:
    match record:
        case Member():
            raise TypeError("a member record is written by joining")
        case _:
            return record.generation
