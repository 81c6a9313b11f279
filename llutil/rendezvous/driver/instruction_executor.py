"""Carries out the machine's instructions on the ledger, and says what is to be seen there.

Each request has a deadline. What could not be done while the ledger was away is done later, by
``news``. What concerns workers is given to the agent as an order. Nothing is decided here. Used by
the driver's thread alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from llutil.ledgers.errors import LedgerUnavailable, SessionLost
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

__all__ = ["InstructionExecutor", "Order", "Store"]

_log = logging.getLogger(__name__)

_FOREVER = float("inf")
_LOG, _MEMBERS, _REPORTS, _PREDECESSOR = "log", "members", "reports", "predecessor"

Order = do.StartWorkers | do.StopWorkers | do.Finish
"""What the machine wants of the agent."""


class Store(Protocol):
    """A round's TCPStore, as far as it matters here: where it is bound, and how to let it go."""

    host: str
    port: int

    def close(self) -> None:
        """Stop serving."""


class InstructionExecutor:
    """One node's instructions, on ``ledger``.

    ``open_store`` binds a TCPStore on a port that the kernel chooses. ``give`` takes orders for the
    agent; ``wake`` sees to it that ``news`` is called soon. ``note_revocation`` is told what a
    survivor should do from now on if this process is killed.
    """

    def __init__(
        self,
        rules: ProtocolParameters,
        layout: RecordKeys,
        ledger: Ledger,
        *,
        open_store: Callable[[], Store],
        give: Callable[[Order], None],
        wake: Callable[[], None],
        note_revocation: Callable[[LeaseRevocation | None], None],
    ) -> None:
        self._rules = rules
        self._layout = layout
        self._open_store = open_store
        self._give = give
        self._wake = wake
        self._note_revocation = note_revocation
        self._records = RecordReader(layout)
        self._requests = LedgerRequests(ledger, layout, rules.lease_ttl, self._records)
        self._watches = WatchSet(ledger)
        self._retry = _FOREVER
        self._keep: int | None = None
        self._predecessor = ""
        self._reports_stage = Stage(0, 0)
        self._stores: dict[Stage, Store] = {}
        self._trouble = ""

    # What is to be seen.

    def renewal(self) -> see.LeaseRenewed | None:
        """The newest renewal of the lease, if it was not given before."""
        return self._requests.renewal()

    def next_look(self, now: float) -> float:
        """When to call ``news`` at the latest, though nothing woke the driver."""
        return min(self._retry, self._requests.next_look(now, self._rules.pause))

    def news(self, node: str) -> list[see.Observation]:
        """What the ledger shows that is new, for the machine's identity ``node``."""
        seen: list[see.Observation] = []
        if self._requests.lost:
            seen.append(self._lose(node))
        if time.monotonic() >= self._retry:
            self._catch_up()
        for name, view in self._watches.news():
            observation = self._seen(name, view)
            if observation is not None:
                seen.append(observation)
        return seen

    def _lose(self, node: str) -> see.LeaseLost:
        """The session is over: what only its identity could see is not looked at any more."""
        self._requests.forget()
        self._note_revocation(None)
        self._keep = None
        self._watches.close(_MEMBERS, _REPORTS, _PREDECESSOR)
        return see.LeaseLost(node)

    def _seen(self, name: str, view: View) -> see.Observation | None:
        match name:
            case "log":
                return see.LogSeen(self._requests.log_in(view))
            case "members":
                return see.MembersSeen(self._records.members_in(view))
            case "reports":
                return see.ReportsSeen(self._reports_stage, self._records.reports_in(view))
            case _:
                return None if view.records else see.PredecessorGone(self._predecessor)

    # Instructions.

    def carry_out(self, instruction: do.Instruction, node: str) -> see.Observation | None:
        """Carry ``instruction`` out, for the machine's identity ``node``; the answer, if it has
        one.
        """
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
                return self._request(instruction, node)
            case do.WatchPredecessor(name=name):
                self._predecessor = name
                self._watch(_PREDECESSOR, layout.members + name)
            case do.WatchMembers():
                self._watches.close(_PREDECESSOR)
                self._watch(_MEMBERS, layout.members)
            case do.WatchReports(stage=stage):
                self._reports_stage = stage
                self._watch(_REPORTS, layout.reports(stage))
            case do.KeepGeneration(generation=generation):
                self._keep = generation
                self._keep_generation()
            case do.Sweep(before=before):
                self._requests.sweep(before, self._watches.last(_LOG), self._deadline())
            case do.OpenStore(stage=stage):
                store = self._stores[stage] = self._open_store()
                return see.StoreOpened(stage, store.host, store.port)
            case do.CloseStore(stage=stage):
                closed = self._stores.pop(stage, None)
                if closed is not None:
                    closed.close()
            case do.Leave():
                self._trouble = self.leave() or self._trouble
                self._note_revocation(self._requests.revocation)
            case do.StartWorkers() | do.StopWorkers() | do.Finish():
                self._order(instruction)
            case do.Wait():
                pass
        return None

    def leave(self) -> str:
        """End the session; empty, or why that failed, so that it will expire."""
        return self._requests.leave(self._deadline())

    def close_stores(self) -> None:
        """Close the TCPStores that are still open."""
        for store in self._stores.values():
            store.close()

    def _deadline(self) -> float:
        """When a request that gets no answer is given up."""
        return time.monotonic() + self._rules.lease_ttl / 2

    def _order(self, order: Order) -> None:
        match order:
            case do.StartWorkers(assignment=assignment):
                # The leader opens the next round's store while its workers of the last one may
                # still use theirs.
                for stage in [stage for stage in self._stores if stage < assignment.stage]:
                    self._stores.pop(stage).close()
            case do.Finish(end=do.GaveUp(why=why) as end) if self._trouble:
                why = f"{why}; the ledger's last word: {self._trouble}"
                order = do.Finish(replace(end, why=why))
            case _:
                pass
        self._give(order)

    def _request(self, request: do.Request, node: str) -> see.Observation:
        try:
            answer = self._requests.answer(request, self._deadline())
        except LedgerUnavailable as error:
            if not self._trouble:
                _log.warning("%s: the ledger does not answer: %s", self._layout.root, error)
            self._trouble = str(error)
            return see.Unanswered(request.ticket)
        except SessionLost:
            return self._lose(node)
        if self._trouble:
            _log.warning("%s: the ledger answers again", self._layout.root)
            self._trouble = ""
        if isinstance(answer, see.LeaseTaken):
            self._note_revocation(self._requests.revocation)
            self._watches.close(_MEMBERS, _REPORTS, _PREDECESSOR)
        elif isinstance(answer, see.Joined) and not self._watches.watches(_LOG):
            self._watch(_LOG, self._layout.log)
        return answer

    def _watch(self, name: str, scope: str) -> None:
        if not self._watches.watch(name, scope, self._deadline(), self._requests.known(scope)):
            self._try_again()
        self._wake()  # its first view is to be seen at once

    def _keep_generation(self) -> None:
        if self._keep is not None and self._requests.keep_generation(self._keep, self._deadline()):
            self._keep = None
        elif self._keep is not None:
            self._try_again()

    def _try_again(self) -> None:
        self._retry = time.monotonic() + self._rules.pause

    def _catch_up(self) -> None:
        """Do what could not be done when it was asked for."""
        self._retry = _FOREVER
        if not self._watches.catch_up(self._deadline()):
            self._try_again()
        self._keep_generation()
