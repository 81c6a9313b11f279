"""Drives one node's machine: the only thread of a rendezvous, between the ledger and the agent.

Observations are gathered from the ledger, the session and the agent; each is one step of the
machine; each instruction is carried out at once, by ``instruction_executor``. What concerns workers
goes to the agent as orders, which it takes from a queue with a descriptor to wait on. Nothing is
decided here.

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

from llutil.errors import LaunchError, RendezvousError
from llutil.ledgers.errors import LedgerClosed
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import Ledger
from llutil.rendezvous.driver.instruction_executor import InstructionExecutor, Order, Store
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Member, Stage

__all__ = ["Driver", "Order", "Store"]

_log = logging.getLogger(__name__)

_FOREVER = float("inf")
_LONGEST = 3600.0
"""Seconds that one wait takes at most; the kernel has a limit too."""


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
        self._revocation: LeaseRevocation | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._closing = False
        # Used by the thread alone from here on, but for the ledger's close.
        self._ledger: Ledger | None = None
        self._executor: InstructionExecutor
        self._until = _FOREVER

    # The agent's side.

    @property
    def change_fd(self) -> int:
        """Readable when ``orders`` has something to give, or ``revocation`` has changed. From
        ``start`` to ``close``.
        """
        return self._change_fd

    @property
    def revocation(self) -> LeaseRevocation | None:
        """How another process ends this node's lease after a kill; None while it has no lease."""
        return self._revocation

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
                self._executor = InstructionExecutor(
                    self._rules,
                    self._layout,
                    ledger,
                    open_store=self._open_store,
                    give=self._give,
                    wake=self._wake.set,
                    note_revocation=self._note_revocation,
                )
                stack.callback(self._executor.close_stores)
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
                self._executor.leave()  # so that the others need not wait for it
            raise

    def _pause(self) -> float:
        """Seconds until there is something to do if nothing comes."""
        now = time.monotonic()
        return min(max(0.0, min(self._until, self._executor.next_look(now)) - now), _LONGEST)

    def _step_through(self, observations: list[see.Observation]) -> None:
        """Step through ``observations`` and whatever answers come of them."""
        queue = deque(observations)
        while queue and not (self._machine.state.finished or self._closing):
            # A request may have taken long: the machine must not think that its lease is over
            # because of that.
            renewal = self._executor.renewal()
            if renewal is not None:
                self._step(renewal, queue)
            self._step(queue.popleft(), queue)

    def _step(self, observation: see.Observation, answers: deque[see.Observation]) -> None:
        state = self._machine.state
        for instruction in self._machine.step(observation, time.monotonic()):
            if isinstance(instruction, do.Wait):
                self._until = instruction.until
                continue
            node = state.node or state.profile.name
            _log.info("%s: %s: %s", node, type(instruction).__name__, instruction.why)
            answer = self._executor.carry_out(instruction, state.node)
            if answer is not None:
                answers.append(answer)

    def _gather(self) -> list[see.Observation]:
        """What is to be seen now; ``Ticked`` if nothing is but the time."""
        seen = self._executor.news(self._machine.state.node)
        while self._inbox:
            seen.append(self._inbox.popleft())
        return seen or [see.Ticked()]

    def _give(self, order: Order) -> None:
        if isinstance(order, do.StopWorkers):
            self._stop_ordered = order.stage
        self._orders.append(order)
        os.eventfd_write(self._change_fd, 1)

    def _note_revocation(self, revocation: LeaseRevocation | None) -> None:
        self._revocation = revocation
        os.eventfd_write(self._change_fd, 1)
