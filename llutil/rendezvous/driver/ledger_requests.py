"""One node's requests to the ledger: its session, its member record, and its writes.

This module carries out the machine's requests and returns the answers. Each call ends by its
deadline. It raises an error if the ledger does not answer or the session is over; the executor
turns that into an observation. Used by one thread. This module may import nothing but
``llutil.ledgers`` and the room's values.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from llutil.ledgers.errors import LeaseGone, LedgerError, LedgerUnavailable, SessionLost
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import (
    Created,
    GuardGone,
    Joined,
    Ledger,
    Session,
    SessionState,
    View,
)
from llutil.ledgers.protocol import Record as LedgerRecord
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.driver.record_writer import RecordWriter
from llutil.rendezvous.driver.version_check import VersionCheck
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.gate_records import Gate
from llutil.rendezvous.protocol.record_codec import encode
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import (
    Assignment,
    Member,
    Record,
)
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = ["LedgerRequests"]

_log = logging.getLogger(__name__)

_GENERATION_TTL = 86400.0
"""How long a generation's records outlive their last leader, in seconds."""


class LedgerRequests:
    """One node's requests in the run that ``keys`` describes. ``ttl`` is the lease's time to live,
    in seconds.
    """

    def __init__(self, ledger: Ledger, keys: RecordKeys, ttl: float, records: RecordReader) -> None:
        self._ledger = ledger
        self._records = records
        self._writer = RecordWriter(keys, records)
        self._versions = VersionCheck()
        self._keys = keys
        self._ttl = ttl
        self._session: Session | None = None
        self._store_name: str | None = None
        """Which store the last session was opened in; None if there was none."""
        self._joined: Joined | None = None
        self._renewed = 0.0
        self._leases: dict[int, str] = {}
        """The leases of the generations, by number."""
        self._unused: dict[str, int] = {}
        """The folders into which nobody had written at that revision: of reports on the round that
        this identity sealed last, of answers at its newest gate.
        """

    # The session.

    def renewal(self) -> see.LeaseRenewed | None:
        """The newest renewal of the session; None if it was returned before."""
        session = self._session
        if session is None or session.renewed_at <= self._renewed:
            return None
        self._renewed = session.renewed_at
        return see.LeaseRenewed(self._renewed)

    @property
    def revocation(self) -> LeaseRevocation | None:
        """How another process can end this identity's lease; None without a session."""
        return self._session.revocation if self._session is not None else None

    @property
    def lost(self) -> bool:
        """Whether there is a session and the store says that it is over."""
        return self._session is not None and self._session.state is SessionState.LOST

    @property
    def gone(self) -> str:
        """Why the store has gone for good, as the session says; empty while it may come back."""
        return self._session.gone if self._session is not None else ""

    def next_check_at(self, now: float, retry_pause: float) -> float:
        """When to look at the session again, even if it has not announced anything.

        A session announces changes of its state, but no renewals. A node that finds itself
        suspended just before a renewal is noted would otherwise wait for an announcement that never
        comes.
        """
        if self._session is None or self._session.gone:
            return float("inf")
        until = self._renewed + self._ttl
        return until if until > now else now + retry_pause

    def forget(self) -> None:
        """Drop the session and the member record: the identity is over."""
        self._session = self._joined = None
        self._unused = {}

    # Requests.

    def answer(self, request: do.Request, deadline: float) -> see.Answer:
        """Carry ``request`` out.

        :raises LedgerUnavailable: there was no answer by ``deadline``; a write may have been
            applied.
        :raises SessionLost: the session is over.
        :raises ForeignRecord: this node has joined a run of another version.
        """
        keys = self._keys
        match request:
            case do.TakeLease(ticket=ticket):
                return self._take_lease(ticket, deadline)
            case do.Join(ticket=ticket, member=member):
                return self._join(ticket, member, deadline)
            case do.ReadLog(ticket=ticket):
                return see.LogRead(
                    ticket, self.read_history(self._ledger.read(keys.log, deadline=deadline))
                )
            case do.ReadReports(ticket=ticket, stage=stage):
                view = self._ledger.read(keys.reports(stage), deadline=deadline)
                return see.ReportsRead(ticket, stage, self._records.read_reports(view))
            case do.Create():
                return self._create(request, deadline)
            case do.ReadBack(ticket=ticket, record=record):
                return see.Found(ticket, self._writer.find(self._ledger, record, deadline))

    def _take_lease(self, ticket: int, deadline: float) -> see.LeaseTaken:
        with suppress(LedgerUnavailable, SessionLost):  # an old one is renewed no more in any case
            self._release(deadline)  # an identity whose record was deleted may still have a lease
        session = self._session = self._ledger.open_session(self._ttl, deadline=deadline)
        self._renewed = session.renewed_at
        before, self._store_name = self._store_name, session.store_name
        if new_store := before not in (None, session.store_name):
            self._leases = {}
            self._writer.forget()
        return see.LeaseTaken(ticket, self._renewed, new_store)

    def _join(self, ticket: int, member: Member, deadline: float) -> see.Joined:
        assert self._session is not None
        keys = self._keys
        joined = self._joined = self._session.join(
            keys.members,
            keys.name(member.node),
            encode(member),
            reads=(keys.log,),
            deadline=deadline,
        )
        older = [one for one in joined.members.records if one.created < joined.record.created]
        names = tuple(one.name for one in older if self._records.has_lease(one))
        log = joined.views[keys.log]
        self._versions.joined(member.node, names, self._records.newest_of_log(log))
        return see.Joined(ticket, names, self.read_history(log))

    def is_there(self, name: str, view: View) -> bool:
        """Whether the older member ``name`` is there, as a view of its key shows.

        :raises ForeignRecord: this node has joined a run of another version.
        """
        member = self._records.record_in(view.records[0]) if view.records else None
        return self._versions.saw(name, member)

    def _create(self, request: do.Create, deadline: float) -> see.Answer:
        if self._session is None or self._joined is None:
            return see.OwnRecordGone(request.ticket)
        first = request.records[0]
        assert not isinstance(first, Member)  # a member record is written by joining
        generation = first.generation
        try:
            lease = self._leases.get(generation)
            if lease is None:  # this is the generation's first record
                lease = self._session.grant_lease(_GENERATION_TTL, deadline=deadline)
                self._leases[generation] = lease
            outcome = self._writer.create(
                self._session, request.records, self._joined.record, lease, deadline
            )
        except LeaseGone as error:
            _log.warning("the lease of generation %d is over: %s", generation, error)
            self._leases.pop(generation, None)
            return see.Unanswered(request.ticket)
        match outcome:
            case GuardGone():
                return see.OwnRecordGone(request.ticket)
            case Created(records=written):
                self._note_unused(first, written)
                return see.Created(request.ticket)
            case there:
                return see.Existed(request.ticket, there)

    def _note_unused(self, first: Record, written: tuple[LedgerRecord, ...]) -> None:
        match first:
            case Assignment(stage=stage):
                self._unused = {self._keys.reports(stage): written[0].created}
            case Gate(stage=stage, number=number):
                self._unused = {self._keys.answers(stage, number): written[0].created}
            case _:
                pass

    def read_history(self, view: View) -> RunHistory:
        """The log that ``view`` shows; the leases of its generations are remembered."""
        log = self._records.read_history(view)
        self._versions.saw_log(log)
        self._leases |= self._records.read_leases(view)
        return log

    def known(self, scope: str) -> View | None:
        """A state of ``scope`` that this identity has seen; a watch can start from it without a
        read. None if none is known.
        """
        joined = self._joined
        if joined is None:
            return None
        if scope in joined.views:
            return joined.views[scope]
        if scope == self._keys.members:
            # The values of other members were not read. If this node came first, there are none.
            return joined.members if len(joined.members.records) == 1 else None
        if scope in self._unused:
            return View((), self._unused[scope])  # nobody can have reported, or answered, before
        return None

    # Requests without an answer.

    def renew_generation(self, generation: int, deadline: float) -> bool:
        """Renew the generation's lease from now on. Returns False if the ledger did not answer."""
        lease = self._leases.get(generation)
        if self._session is None or lease is None:
            return True
        try:
            self._session.keep_alive(lease, deadline=deadline)
        except LedgerUnavailable:
            return False
        except (LeaseGone, SessionLost) as error:
            _log.warning("the lease of generation %d cannot be renewed: %s", generation, error)
        return True

    def delete_stale(
        self, done: do.DeleteStale | do.DeleteGates, known: Iterable[str], deadline: float
    ) -> None:
        """Delete what is stale once that is done: records that this node wrote, and those with a
        key of ``known``. Records that stay expire with their lease.
        """
        session, joined, keys = self._session, self._joined, self._keys
        if session is None or joined is None:
            return
        match done:
            case do.DeleteStale(before=before):
                stale = partial(keys.stale, before=before)
                # The newest marker stays; of the generations before its own, nothing is left.
                old = [one for one in self._leases if one < before.generation - 1]
            case do.DeleteGates(stage=of, number=number, kept=kept, heard=heard):
                stale = partial(keys.stale_gates, stage=of, number=number, kept=kept, heard=heard)
                old = []
        try:
            if self._writer.delete_stale(session, stale, known, joined.record, deadline):
                self._end_leases(old, deadline)
        except (LedgerUnavailable, SessionLost) as error:
            _log.info("%s: what is stale stays until it expires: %s", done.why, error)

    def _end_leases(self, generations: Iterable[int], deadline: float) -> None:
        """End the leases of these generations, and with them their records."""
        for generation in generations:
            self._ledger.end_lease(self._leases[generation], deadline=deadline)
            del self._leases[generation]  # not before: without an answer this is done again

    def leave(self, deadline: float, *, all_records: bool) -> str:
        """End the session, and with it the own member record; with ``all_records`` the leases of
        the run, too. Returns "", or why that failed; then they will expire.
        """
        try:
            self._release(deadline)
            if all_records:
                self._end_leases(list(self._leases), deadline)
        except LedgerError as error:  # this node's part is over, whatever the error is
            _log.warning("this node's lease could not be ended, and will expire: %s", error)
            return str(error)
        return ""

    def _release(self, deadline: float) -> None:
        session = self._session
        if session is not None and session.state is not SessionState.LOST:
            self.forget()
            session.release(deadline=deadline)
