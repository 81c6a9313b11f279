"""Runs one node's machine on a thread, the only one of a rendezvous, between ledger and agent.

The driver collects observations from the ledger, the session and the agent, and gives each to the
machine as one step. ``instruction_executor`` carries each instruction out at once. Instructions
about workers go to the agent through a queue, with a descriptor to wait on. Nothing is decided
here.

The thread ends with the machine's ``Finish``, or with an error that a retry cannot mend (the store
refuses the client, the run is of another version); ``take_instructions`` then raises it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack

from llutil.errors import LaunchError, RendezvousError
from llutil.ledgers.errors import LedgerClosed
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import Ledger
from llutil.rendezvous.driver.change_signal import LONGEST_WAIT, ChangeSignal
from llutil.rendezvous.driver.instruction_executor import (
    AgentInstruction,
    InstructionExecutor,
    Store,
)
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Member, Stage

__all__ = ["AgentInstruction", "Driver", "Store"]

_log = logging.getLogger(__name__)

_FOREVER = float("inf")


class Driver:
    """One node's part in one run, on a thread of its own from ``start`` to ``close``.

    ``open_ledger`` gets the callback for changes. ``open_store`` binds a TCPStore on a port that
    the kernel chooses. Until it is started a driver holds nothing.
    """

    def __init__(
        self,
        parameters: ProtocolParameters,
        profile: Member,
        keys: RecordKeys,
        open_ledger: Callable[[Callable[[], None]], Ledger],
        open_store: Callable[[], Store],
    ) -> None:
        self._machine = Machine(parameters, profile)
        self._parameters = parameters
        self._keys = keys
        self._open_ledger = open_ledger
        self._open_store = open_store
        self._changes = ChangeSignal()
        self._close_stores: Callable[[], None] = lambda: None
        self._wake = threading.Event()
        self._inbox: deque[see.Observation] = deque()
        self._instructions: deque[AgentInstruction] = deque()
        self._stop_wanted: Stage | None = None
        self._has_workers = True
        """Whether the agent carries out ``StopWorkers``. Else there is nothing to stop."""
        self._error: LaunchError | None = None
        self._revocation: LeaseRevocation | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._closing = False
        # Only the thread uses the following, except that ``close`` closes the ledger.
        self._ledger: Ledger | None = None
        self._executor: InstructionExecutor
        self._until = _FOREVER
        self._repeated: set[tuple[str, str]] = set()
        """The instructions, and their reasons, since all requests were answered."""

    # The agent's side.

    @property
    def change_fd(self) -> int:
        """A descriptor that is readable when ``take_instructions`` has something to give, or
        ``revocation`` has changed. It is open from ``start`` to ``close``; -1 otherwise.
        """
        return self._changes.fd

    @property
    def parameters(self) -> ProtocolParameters:
        """What the caller decided."""
        return self._parameters

    @property
    def ended(self) -> bool:
        """Whether this node's part is over, in whatever way."""
        return self._ended.is_set()

    @property
    def decided_end(self) -> do.End | None:
        """How this node's part ends, as soon as that is known. Its workers may run yet."""
        return self._machine.state.decided_end

    @property
    def revocation(self) -> LeaseRevocation | None:
        """How another process ends this node's lease after a kill; None while it has no lease."""
        return self._revocation

    def start(self) -> None:
        """Start the thread. May be called once."""
        self._changes.open()
        thread = threading.Thread(target=self._run, name="llutil-rendezvous", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had
            self._changes.close()
            raise
        self._thread = thread

    def tell(self, observation: see.AgentObservation) -> None:
        """Tell the machine what the agent's workers did, how far they have come at a gate, or what
        the agent was asked for. Any thread may call this.
        """
        self._inbox.append(observation)
        self._wake.set()

    def take_instructions(self) -> tuple[AgentInstruction, ...]:
        """Take the instructions that came since the last call, in order.

        :raises LaunchError: the rendezvous failed; earlier instructions do not matter any more.
        """
        if self._error is not None:
            raise self._error  # and the descriptor stays readable
        self._changes.clear()
        return tuple(self._instructions.popleft() for _ in range(len(self._instructions)))

    def wait(self, deadline: float) -> None:
        """Wait until ``take_instructions`` has something to give, or until ``deadline``."""
        self._changes.wait(deadline)

    def retire(self, asked: see.EndRequested) -> None:
        """Request the end of this node's part, for an agent that has no workers and will not start
        any. Waits for nothing. Any thread may call this.
        """
        self._has_workers = False
        if self._stop_wanted is not None:
            self.tell(see.WorkersStopped(self._stop_wanted))
        self.tell(asked)

    def leave(self, asked: see.EndRequested, deadline: float) -> bool:
        """``retire``, and wait for the end.

        Returns whether it has ended by ``deadline``, in whatever way. Does nothing if the driver
        was not started.
        """
        if self._thread is None:
            return True
        self.retire(asked)
        while not self._ended.wait(min(deadline - time.monotonic(), LONGEST_WAIT)):
            if time.monotonic() >= deadline:
                break
        if self._error is not None:
            _log.info("the rendezvous failed before this node left it: %s", self._error)
        return self._ended.is_set()

    def close(self, deadline: float) -> bool:
        """End the thread, whatever it is doing, and close everything, also the store of a round
        that succeeded. Returns whether that was done by ``deadline``.

        If the node did not leave before, its records expire in the ledger.
        """
        thread, ledger = self._thread, self._ledger
        if thread is None or self._changes.fd < 0:
            return True
        self._closing = True
        self._wake.set()
        if ledger is not None and thread.is_alive():
            ledger.close()  # requests that are under way fail at once
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            _log.warning("the rendezvous' thread is stuck, and stays until this process ends")
            return False
        self._changes.close()
        self._close_stores()
        return True

    # The thread's side.

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                ledger = self._ledger = self._open_ledger(self._wake.set)
                stack.callback(ledger.close)
                self._executor = InstructionExecutor(
                    self._parameters,
                    self._keys,
                    ledger,
                    open_store=self._open_store,
                    give=self._give,
                    wake=self._wake.set,
                    note_revocation=self._note_revocation,
                )
                self._close_stores = self._executor.close_stores
                self._run_machine()
        except Exception as error:  # noqa: BLE001 - the edge of the thread: the agent hears of it
            self._fail(error)
        finally:
            self._ended.set()
            self._changes.set()

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

    def _run_machine(self) -> None:
        try:
            self._step_through_all([see.Ticked()])
            while not (self._machine.state.finished or self._closing):
                self._wake.wait(self._pause())
                self._wake.clear()
                self._step_through_all(self._new_observations())
        except LaunchError as error:
            if not isinstance(error, LedgerClosed):
                self._executor.leave()  # so that the others need not wait for it
            raise

    def _pause(self) -> float:
        """How long to wait for something new, in seconds, before the next step is due anyway."""
        now = time.monotonic()
        return min(
            max(0.0, min(self._until, self._executor.next_check_at(now)) - now), LONGEST_WAIT
        )

    def _step_through_all(self, observations: list[see.Observation]) -> None:
        """Give ``observations`` to the machine, and then the answers to its instructions."""
        queue = deque(observations)
        while queue and not (self._machine.state.finished or self._closing):
            # A request may have taken long. The machine must hear of renewals since then, or it
            # would think that its lease is over.
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
            self._log_instruction(instruction, state.node or state.profile.name)
            answer = self._executor.carry_out(instruction, state.node)
            if answer is not None:
                answers.append(answer)

    def _log_instruction(self, instruction: do.Instruction, node: str) -> None:
        """One line for each instruction, but one only for requests that are repeated because they
        get no answer.
        """
        if not self._executor.last_error:
            self._repeated.clear()
        request = type(instruction).__name__, instruction.why
        level = logging.DEBUG if request in self._repeated else logging.INFO
        self._repeated.add(request)
        _log.log(level, "%s: %s: %s", node, *request)

    def _new_observations(self) -> list[see.Observation]:
        """What is new; ``Ticked`` if only time has passed."""
        seen = self._executor.new_observations(self._machine.state.node)
        while self._inbox:
            seen.append(self._inbox.popleft())
        return seen or [see.Ticked()]

    def _give(self, instruction: AgentInstruction) -> None:
        if isinstance(instruction, do.StopWorkers):
            self._stop_wanted = instruction.stage
            if not self._has_workers:
                self.tell(see.WorkersStopped(instruction.stage))
        self._instructions.append(instruction)
        self._changes.set()

    def _note_revocation(self, revocation: LeaseRevocation | None) -> None:
        self._revocation = revocation
        self._changes.set()
