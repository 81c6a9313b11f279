"""Carries out the machine's instructions on the ledger, and returns what the ledger shows.

Each request has a deadline. ``new_observations`` repeats what could not be done while the ledger
did not answer. Instructions about workers are given to the agent. Nothing is decided here. Only the
driver's thread uses this module.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from llutil.ledgers.errors import LedgerGone, LedgerUnavailable, SessionLost
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import Ledger, View
from llutil.rendezvous.driver.ledger_requests import LedgerRequests
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.driver.watch_set import WatchSet
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Stage

__all__ = ["AgentInstruction", "InstructionExecutor", "Store"]

_log = logging.getLogger(__name__)

_FOREVER = float("inf")
_LOG, _MEMBERS, _REPORTS, _PREDECESSOR = "log", "members", "reports", "predecessor"
_ANSWERS = "answers"
_OF_IDENTITY = (_MEMBERS, _REPORTS, _PREDECESSOR, _ANSWERS)
"""The watches that end with a lease."""

_READS = do.ReadLog | do.ReadReports | do.ReadBack

AgentInstruction = (
    do.StartWorkers | do.StopWorkers | do.RaiseGate | do.OpenGate | do.RefuseWish | do.Finish
)
"""The instructions that the agent carries out."""


class Store(Protocol):
    """A round's TCPStore, as far as this module uses it: its bound address, and how to close it."""

    host: str
    port: int

    def close(self) -> None:
        """Stop serving."""


class InstructionExecutor:
    """Carries out one node's instructions on ``ledger``.

    ``open_store`` binds a TCPStore on a port that the kernel chooses. ``give`` takes instructions
    for the agent. ``wake`` makes the driver call ``new_observations`` soon. ``note_revocation``
    gets what another process has to do from now on if this one is killed.
    """

    def __init__(
        self,
        parameters: ProtocolParameters,
        keys: RecordKeys,
        ledger: Ledger,
        *,
        open_store: Callable[[], Store],
        give: Callable[[AgentInstruction], None],
        wake: Callable[[], None],
        note_revocation: Callable[[LeaseRevocation | None], None],
    ) -> None:
        self._parameters = parameters
        self._keys = keys
        self._open_store = open_store
        self._give = give
        self._wake = wake
        self._note_revocation = note_revocation
        self._records = RecordReader(keys)
        self._requests = LedgerRequests(ledger, keys, parameters.lease_ttl, self._records)
        self._watches = WatchSet(ledger)
        self._retry = _FOREVER
        self._call_said = ""
        """Why the ledger has gone for good, as a request was told; empty if none was."""
        self._gone = ""
        """Why the ledger has gone for good, as far as that was returned; empty before."""
        self._generation_to_renew: int | None = None
        self._predecessor = ""
        self._reports_stage = Stage(0, 0)
        self._gate = (Stage(0, 0), 0)
        self._stores: dict[Stage, Store] = {}
        self._errors: dict[str, str] = {}
        """The last error of reads and of writes, as long as they get no answer."""

    # What the ledger shows.

    @property
    def last_error(self) -> str:
        """The last error of a request that gets no answer; empty if all do."""
        return next(reversed(self._errors.values()), "")

    def renewal(self) -> see.LeaseRenewed | None:
        """The newest renewal of the lease; None if it was returned before."""
        return self._requests.renewal()

    def next_check_at(self, now: float) -> float:
        """When to call ``new_observations`` at the latest, even if nothing wakes the driver."""
        return min(self._retry, self._requests.next_check_at(now, self._parameters.retry_pause))

    def new_observations(self, node: str) -> list[see.Observation]:
        """What is new in the ledger, for the machine's identity ``node``."""
        seen: list[see.Observation] = []
        if self._requests.lost:
            seen.append(self._lose(node))
        gone = self._call_said or self._requests.gone  # asked before the views, and told after them
        if time.monotonic() >= self._retry:
            self._catch_up()
        for name, view in self._watches.new_views():
            observation = self._seen(name, view)
            if observation is not None:
                seen.append(observation)
        if gone and not self._gone:
            self._gone, self._retry = gone, _FOREVER
            seen.append(see.LedgerGone(gone))
        return seen

    def _lose(self, node: str) -> see.LeaseLost:
        """The session is over: close the watches that belong to its identity."""
        self._requests.forget()
        self._note_revocation(None)
        self._generation_to_renew = None
        self._watches.close(*_OF_IDENTITY)
        return see.LeaseLost(node)

    def _seen(self, name: str, view: View) -> see.Observation | None:
        match name:
            case "log":
                return see.LogSeen(self._requests.read_history(view))
            case "members":
                return see.MembersSeen(self._records.read_members(view))
            case "reports":
                return see.ReportsSeen(self._reports_stage, self._records.read_reports(view))
            case "answers":
                return see.AnswersSeen(*self._gate, self._records.read_answers(view))
            case _:
                there = self._requests.is_there(self._predecessor, view)
                return None if there else see.PredecessorGone(self._predecessor)

    # Instructions.

    def carry_out(self, instruction: do.Instruction, node: str) -> see.Observation | None:
        """Carry ``instruction`` out, for the machine's identity ``node``. Returns the answer; None
        if the instruction has none.
        """
        keys = self._keys
        match instruction:
            case (
                do.TakeLease()
                | do.Join()
                | do.ReadLog()
                | do.ReadReports()
                | do.Create()
                | do.ReadBack()
            ):
                return self._request(instruction, node)
            case do.WatchPredecessor(name=name):
                self._predecessor = name
                self._watch(_PREDECESSOR, keys.members + name)
            case do.WatchMembers():
                self._watches.close(_PREDECESSOR)
                self._watch(_MEMBERS, keys.members)
            case do.WatchReports(stage=stage):
                self._reports_stage = stage
                self._watches.close(_ANSWERS)  # of an earlier round
                self._watch(_REPORTS, keys.reports(stage))
            case do.WatchAnswers(stage=stage, number=number):
                self._gate = (stage, number)
                self._watch(_ANSWERS, keys.answers(stage, number))
            case do.DeleteGates():
                self._watches.close(_ANSWERS)
                known = self._known_log_keys() | self._known_wish_keys()
                self._requests.delete_stale(instruction, known, self._deadline())
            case do.RenewGeneration(generation=generation):
                self._generation_to_renew = generation
                self._renew_generation()
            case do.DeleteStale():
                self._requests.delete_stale(instruction, self._known_log_keys(), self._deadline())
            case do.OpenStore(stage=stage):
                store = self._stores[stage] = self._open_store()
                return see.StoreOpened(stage, store.host, store.port)
            case do.CloseStore(stage=stage):
                closed = self._stores.pop(stage, None)
                if closed is not None:
                    closed.close()
            case do.Leave():
                if trouble := self.leave():
                    self._note_error("writes", trouble)
                self._note_revocation(self._requests.revocation)
            case do.Wait():
                pass
            case _:
                self._hand_over(instruction)
        return None

    def _known_log_keys(self) -> set[str]:
        log = self._watches.last(_LOG)
        return self._records.read_log_keys(log) if log else set()

    def _known_wish_keys(self) -> set[str]:
        reports = self._watches.last(_REPORTS)
        return self._records.read_wish_keys(reports) if reports else set()

    def leave(self) -> str:
        """End the session, and all records of a run that has no other node and no later life.
        Returns "", or why that failed; then they will expire.
        """
        return self._requests.leave(self._deadline(), all_records=self._parameters.unique_run)

    def close_stores(self) -> None:
        """Close the TCPStores that are still open."""
        while self._stores:
            self._stores.popitem()[1].close()

    def _deadline(self) -> float:
        """When a request that gets no answer is given up."""
        return time.monotonic() + self._parameters.lease_ttl / 2

    def _hand_over(self, instruction: AgentInstruction) -> None:
        match instruction:
            case do.StartWorkers(assignment=assignment):
                # Not earlier: the leader opens the next round's store while its workers of the
                # last round may still use the old one.
                for stage in [stage for stage in self._stores if stage < assignment.stage]:
                    self._stores.pop(stage).close()
            case do.Finish(
                end=do.GaveUp(why=why) | do.FinishedWell(why=why, recorded=False) as end
            ) if self.last_error and not self._gone:
                why = f"{why}; the ledger's last error: {self.last_error}"
                instruction = do.Finish(replace(end, why=why))
            case _:
                pass
        self._give(instruction)

    def _request(self, request: do.Request, node: str) -> see.Observation:
        # A store that is full answers reads, and takes no writes.
        kind = "reads" if isinstance(request, _READS) else "writes"
        try:
            answer = self._requests.answer(request, self._deadline())
        except LedgerUnavailable as error:
            if kind not in self._errors:
                _log.warning("%s: the ledger does not answer %s: %s", self._keys.root, kind, error)
            self._note_error(kind, error)
            if isinstance(error, LedgerGone):
                self._call_said = str(error)
                self._wake()
            return see.Unanswered(request.ticket)
        except SessionLost:
            return self._lose(node)
        if self._errors.pop(kind, None):
            _log.warning("%s: the ledger answers %s again", self._keys.root, kind)
        if kind == "writes":
            self._errors.clear()
        if isinstance(answer, see.LeaseTaken):
            self._note_revocation(self._requests.revocation)
            self._watches.close(*_OF_IDENTITY)
        elif isinstance(answer, see.Joined) and not self._watches.watches(_LOG):
            self._watch(_LOG, self._keys.log)
        return answer

    def _note_error(self, kind: str, error: object) -> None:
        self._errors.pop(kind, None)  # so that the newest is the last
        self._errors[kind] = str(error)

    def _watch(self, name: str, scope: str) -> None:
        if not self._watches.watch(name, scope, self._deadline(), self._requests.known(scope)):
            self._try_again()
        self._wake()  # the first view is there at once

    def _renew_generation(self) -> None:
        if self._generation_to_renew is not None and self._requests.renew_generation(
            self._generation_to_renew, self._deadline()
        ):
            self._generation_to_renew = None
        elif self._generation_to_renew is not None:
            self._try_again()

    def _try_again(self) -> None:
        self._retry = time.monotonic() + self._parameters.retry_pause

    def _catch_up(self) -> None:
        """Repeat what could not be done before: open watches, renew the generation's lease."""
        self._retry = _FOREVER
        if not self._watches.catch_up(self._deadline()):
            self._try_again()
        self._renew_generation()
