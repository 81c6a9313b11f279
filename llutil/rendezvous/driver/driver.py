"""Carries out what one node's machine says: the only clock, and the only thread, of a rendezvous.

Observations are gathered from the ledger's watches, the session and the agent; each is one step of
the machine; each instruction is carried out at once, requests with a deadline. What concerns
workers goes to the agent as orders, which it takes from a queue with a descriptor to wait on.
Nothing is decided here.

The thread ends with the machine's ``Finish``, or with an error that no later try of the same can
mend (the store refuses us, a record is not ours); ``orders`` then raises it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Protocol

from llutil.errors import LaunchError, RendezvousError
from llutil.ledgers.errors import LedgerClosed, LedgerUnavailable, SessionLost
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import Ledger, View
from llutil.rendezvous.driver.ledger_requests import LedgerRequests
from llutil.rendezvous.driver.watch_set import WatchSet
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Member, Stage

__all__ = ["Driver", "Order", "Store"]

_log = logging.getLogger(__name__)

_FOREVER = float("inf")
_LONGEST = 3600.0  # seconds that one wait takes at most; the kernel has a limit too
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
    """One node's part in one run, on a thread of its own from ``start`` to ``close``.

    ``open_ledger`` gets the callback for changes. ``open_store`` binds a TCPStore on a port that
    the kernel chooses. Until it is started a driver holds nothing.
    """

    def __init__(
        self,
        rules: ProtocolParameters,
        profile: Member,
        layout: RecordKeys,
        open_ledger: Callable[[Callable[[], None]], Ledger],
        open_store: Callable[[], Store],
    ) -> None:
        self._machine = Machine(rules, profile)
        self._rules = rules
        self._layout = layout
        self._open_ledger = open_ledger
        self._open_store = open_store
        self._change_fd = -1
        self._wake = threading.Event()
        self._inbox: deque[see.Observation] = deque()
        self._orders: deque[Order] = deque()
        self._stop_ordered: Stage | None = None
        self._error: LaunchError | None = None
        self._will: LeaseRevocation | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._closing = False
        # Used by the thread alone from here on, but for the ledger's close.
        self._ledger: Ledger | None = None
        self._standing: LedgerRequests
        self._lookout: WatchSet
        self._until = _FOREVER
        self._retry = _FOREVER
        self._keep: int | None = None
        self._reports_stage = Stage(0, 0)
        self._predecessor = ""
        self._stores: dict[Stage, Store] = {}
        self._trouble = ""

    # The agent's side.

    @property
    def change_fd(self) -> int:
        """Readable when ``orders`` has something to give, or ``will`` is another. From ``start`` to
        ``close``.
        """
        return self._change_fd

    @property
    def will(self) -> LeaseRevocation | None:
        """What a survivor should do if this process is killed now; None while this node has no
        lease.
        """
        return self._will

    def start(self) -> None:
        """Begin. May be called once."""
        self._change_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        thread = threading.Thread(target=self._run, name="llutil-rendezvous", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had
            os.close(self._change_fd)
            self._change_fd = -1
            raise
        self._thread = thread

    def tell(self, observation: see.WorkersEnded | see.WorkersStopped | see.Asked) -> None:
        """Tell the machine what the agent's workers did, or what the agent was asked. From any
        thread.
        """
        self._inbox.append(observation)
        self._wake.set()

    def orders(self) -> tuple[Order, ...]:
        """Take what the machine has wanted since the last call, in order.

        :raises LaunchError: the rendezvous failed; nothing that it wanted before matters any more.
        """
        if self._error is not None:
            raise self._error  # and the descriptor stays readable
        with suppress(BlockingIOError):
            os.eventfd_read(self._change_fd)
        return tuple(self._orders.popleft() for _ in range(len(self._orders)))

    def wait(self, deadline: float) -> None:
        """Wait until ``orders`` has something to give, or until ``deadline``."""
        poll = select.poll()  # select.select takes no descriptor above 1023
        poll.register(self._change_fd, select.POLLIN)
        poll.poll(1000.0 * min(max(0.0, deadline - time.monotonic()), _LONGEST))

    def leave(self, asked: see.Asked, deadline: float) -> bool:
        """End this node's part as ``asked``, for an agent that has no workers any more.

        Says whether it has ended by ``deadline``, in whatever way. Does nothing if it was not
        started.
        """
        if self._thread is None:
            return True
        self.tell(asked)
        try:
            while not self._ended.is_set() and time.monotonic() < deadline:
                if self._stop_ordered is not None:
                    self.tell(see.WorkersStopped(self._stop_ordered))
                self.wait(deadline)
                self.orders()
        except LaunchError as error:
            _log.info("the rendezvous had failed before this node left it: %s", error)
        return self._ended.is_set()

    def close(self, deadline: float) -> bool:
        """End the thread, whatever it is doing, and give everything back; say whether that was done
        by ``deadline``.

        What was not left before expires in the ledger.
        """
        thread, ledger = self._thread, self._ledger
        if thread is None or self._change_fd < 0:
            return True
        self._closing = True
        self._wake.set()
        if ledger is not None and thread.is_alive():
            ledger.close()  # what is under way there fails at once
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            _log.warning("the rendezvous' thread is stuck, and stays until this process ends")
            return False
        os.close(self._change_fd)
        self._change_fd = -1
        return True

    # The thread's side.

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                ledger = self._ledger = self._open_ledger(self._wake.set)
                stack.callback(ledger.close)
                stack.callback(self._close_stores)
                self._standing = LedgerRequests(ledger, self._layout, self._rules.lease_ttl)
                self._lookout = WatchSet(ledger)
                self._follow()
        except Exception as error:  # noqa: BLE001 - the edge of the thread: the agent hears of it
            self._fail(error)
        finally:
            self._ended.set()
            os.eventfd_write(self._change_fd, 1)

    def _fail(self, error: Exception) -> None:
        if self._closing and isinstance(error, LedgerClosed):
            _log.debug("the rendezvous was closed: %s", error)
        elif self._machine.state.finished:
            _log.error("cleaning up after the rendezvous failed", exc_info=error)
        elif isinstance(error, LaunchError):
            self._error = error
        else:
            _log.error("the rendezvous broke down", exc_info=error)
            self._error = RendezvousError(
                f"the rendezvous broke down: {type(error).__name__}: {error}"
            )
            self._error.__cause__ = error

    def _follow(self) -> None:
        try:
            self._step_through([see.Ticked()])
            while not (self._machine.state.finished or self._closing):
                self._wake.wait(self._pause())
                self._wake.clear()
                self._step_through(self._gather())
        except LaunchError as error:
            if not isinstance(error, LedgerClosed):
                self._standing.leave(self._deadline())  # so that the others need not wait for it
            raise

    def _close_stores(self) -> None:
        for store in self._stores.values():
            store.close()

    def _pause(self) -> float:
        """Seconds until there is something to do if nothing comes."""
        now = time.monotonic()
        look = self._standing.next_look(now, self._rules.pause)
        return min(max(0.0, min(self._until, self._retry, look) - now), _LONGEST)

    def _step_through(self, observations: list[see.Observation]) -> None:
        """Step through ``observations`` and whatever answers come of them."""
        queue = deque(observations)
        while queue and not (self._machine.state.finished or self._closing):
            # A request may have taken long: the machine must not think that its lease is over
            # because of that.
            renewal = self._standing.renewal()
            if renewal is not None:
                self._step(renewal, queue)
            self._step(queue.popleft(), queue)

    def _step(self, observation: see.Observation, answers: deque[see.Observation]) -> None:
        for instruction in self._machine.step(observation, time.monotonic()):
            if isinstance(instruction, do.Wait):
                self._until = instruction.until
                continue
            node = self._machine.state.node or self._machine.state.profile.name
            _log.info("%s: %s: %s", node, type(instruction).__name__, instruction.why)
            answer = self._carry_out(instruction)
            if answer is not None:
                answers.append(answer)

    def _gather(self) -> list[see.Observation]:
        """What is to be seen now; ``Ticked`` if nothing is but the time."""
        seen: list[see.Observation] = []
        if self._standing.lost:
            seen.append(self._lose())
        if time.monotonic() >= self._retry:
            self._catch_up()
        for name, view in self._lookout.news():
            observation = self._seen(name, view)
            if observation is not None:
                seen.append(observation)
        while self._inbox:
            seen.append(self._inbox.popleft())
        return seen or [see.Ticked()]

    def _lose(self) -> see.LeaseLost:
        """The session is over: what only its identity could see is not looked at any more."""
        self._standing.forget()
        self._note_will()
        self._keep = None
        self._lookout.close(_MEMBERS, _REPORTS, _PREDECESSOR)
        return see.LeaseLost(self._machine.state.node)

    def _seen(self, name: str, view: View) -> see.Observation | None:
        match name:
            case "log":
                return see.LogSeen(self._standing.log_in(view))
            case "members":
                return see.MembersSeen(self._standing.members_in(view))
            case "reports":
                return see.ReportsSeen(self._reports_stage, self._standing.reports_in(view))
            case _:
                return None if view.records else see.PredecessorGone(self._predecessor)

    # Instructions.

    def _deadline(self) -> float:
        """When a request that gets no answer is given up."""
        return time.monotonic() + self._rules.lease_ttl / 2

    def _carry_out(self, instruction: do.Instruction) -> see.Observation | None:
        layout = self._layout
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
                self._watch(_PREDECESSOR, layout.members + name)
            case do.WatchMembers():
                self._lookout.close(_PREDECESSOR)
                self._watch(_MEMBERS, layout.members)
            case do.WatchReports(stage=stage):
                self._reports_stage = stage
                self._watch(_REPORTS, layout.reports(stage))
            case do.KeepGeneration(generation=generation):
                self._keep = generation
                self._keep_generation()
            case do.Sweep(before=before):
                self._standing.sweep(before, self._lookout.last(_LOG), self._deadline())
            case do.OpenStore(stage=stage):
                store = self._stores[stage] = self._open_store()
                return see.StoreOpened(stage, store.host, store.port)
            case do.CloseStore(stage=stage):
                closed = self._stores.pop(stage, None)
                if closed is not None:
                    closed.close()
            case do.Leave():
                self._trouble = self._standing.leave(self._deadline()) or self._trouble
                self._note_will()
            case do.StartWorkers() | do.StopWorkers() | do.Finish():
                self._order(instruction)
            case do.Wait():
                pass
        return None

    def _order(self, order: Order) -> None:
        match order:
            case do.StartWorkers(assignment=assignment):
                # The leader opens the next round's store while its workers of the last one may
                # still use theirs.
                for stage in [stage for stage in self._stores if stage < assignment.stage]:
                    self._stores.pop(stage).close()
            case do.StopWorkers(stage=stage):
                self._stop_ordered = stage
            case do.Finish(end=do.GaveUp(why=why) as end) if self._trouble:
                order = do.Finish(
                    replace(end, why=f"{why}; the ledger's last word: {self._trouble}")
                )
            case _:
                pass
        self._orders.append(order)
        os.eventfd_write(self._change_fd, 1)

    def _request(self, request: do.Request) -> see.Observation:
        try:
            answer = self._standing.answer(request, self._deadline())
        except LedgerUnavailable as error:
            if not self._trouble:
                _log.warning("%s: the ledger does not answer: %s", self._layout.root, error)
            self._trouble = str(error)
            return see.Unanswered(request.ticket)
        except SessionLost:
            return self._lose()
        if self._trouble:
            _log.warning("%s: the ledger answers again", self._layout.root)
            self._trouble = ""
        if isinstance(answer, see.LeaseTaken):
            self._note_will()
            self._lookout.close(_MEMBERS, _REPORTS, _PREDECESSOR)
        elif isinstance(answer, see.Joined) and not self._lookout.watches(_LOG):
            self._watch(_LOG, self._layout.log)
        return answer

    def _note_will(self) -> None:
        self._will = self._standing.will
        os.eventfd_write(self._change_fd, 1)

    def _watch(self, name: str, scope: str) -> None:
        if not self._lookout.watch(name, scope, self._deadline(), self._standing.known(scope)):
            self._again()
        self._wake.set()  # its first view is to be seen at once

    def _keep_generation(self) -> None:
        if self._keep is not None and self._standing.keep_generation(self._keep, self._deadline()):
            self._keep = None
        elif self._keep is not None:
            self._again()

    def _again(self) -> None:
        self._retry = time.monotonic() + self._rules.pause

    def _catch_up(self) -> None:
        """Do what could not be done when it was asked for."""
        self._retry = _FOREVER
        if not self._lookout.catch_up(self._deadline()):
            self._again()
        self._keep_generation()
