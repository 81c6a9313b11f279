"""One node's requests to the ledger: its session, its own record, and all that it writes under
them.

Carries out requests and gives the answers that the machine waits for. A call ends by its deadline;
that the ledger did not answer, or that the session is over, is raised for the driver to tell. Used
by one thread. This module may import nothing but ``llutil.ledgers`` and the room's values.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from llutil.ledgers.errors import LeaseGone, LedgerError, LedgerUnavailable, SessionLost
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import Exists, GuardGone, Joined, Ledger, Session, SessionState, View
from llutil.ledgers.protocol import Record as Stored
from llutil.rendezvous.driver.record_reader import RecordReader, misplaced
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.record_codec import decode, encode
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import (
    Assignment,
    Member,
    Record,
    Stage,
)
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = ["LedgerRequests"]

_log = logging.getLogger(__name__)

_GENERATION_TTL = 86400.0
"""Seconds that a generation's records outlive their last leader."""
_SCOPES = 60
"""Scopes that one transaction deletes. etcd takes 128 operations in one, unless it is told
otherwise.
"""


class LedgerRequests:
    """One node's requests in the run that ``layout`` describes. ``ttl`` is the lease's, in
    seconds.
    """

    def __init__(
        self, ledger: Ledger, layout: RecordKeys, ttl: float, records: RecordReader
    ) -> None:
        self._ledger = ledger
        self._records = records
        self._layout = layout
        self._ttl = ttl
        self._session: Session | None = None
        self._joined: Joined | None = None
        self._renewed = 0.0
        self._leases: dict[int, str] = {}
        """The leases of the generations, by number."""
        self._written: set[str] = set()
        """Keys of the log that this node wrote and has not deleted; a watch may not have shown them
        yet.
        """
        self._sealed: tuple[Stage, int] | None = None
        """The round that this identity sealed last, and the store's revision of it."""

    # The session.

    def renewal(self) -> see.LeaseRenewed | None:
        """The newest renewal of the session, if it was not given before."""
        session = self._session
        if session is None or session.renewed_at <= self._renewed:
            return None
        self._renewed = session.renewed_at
        return see.LeaseRenewed(self._renewed)

    @property
    def revocation(self) -> LeaseRevocation | None:
        """What somebody else can do for this identity once this process is gone."""
        return self._session.revocation if self._session is not None else None

    @property
    def lost(self) -> bool:
        """Whether there is a session, of which the store says that it is over."""
        return self._session is not None and self._session.state is SessionState.LOST

    def next_look(self, now: float, pause: float) -> float:
        """When to look at the session again, though it has not announced anything.

        A session announces a change of its state, and no renewal: whoever found it suspended by its
        own clock an instant before a renewal was noted would wait for an announcement that never
        comes.
        """
        if self._session is None:
            return float("inf")
        until = self._renewed + self._ttl
        return until if until > now else now + pause

    def forget(self) -> None:
        """The identity is over: its record is not there any more."""
        self._session = self._joined = self._sealed = None

    # Requests.

    def answer(self, request: do.Request, deadline: float) -> see.Answer:
        """Carry ``request`` out.

        :raises LedgerUnavailable: there was no answer by ``deadline``; a write may have been
            applied.
        :raises SessionLost: the session is over.
        :raises ConfigError: a record is not one of ours.
        """
        layout = self._layout
        match request:
            case do.TakeLease(ticket=ticket):
                return see.LeaseTaken(ticket, self._take_lease(deadline))
            case do.Join(ticket=ticket, member=member):
                return self._join(ticket, member, deadline)
            case do.ReadLog(ticket=ticket):
                return see.LogRead(
                    ticket, self.log_in(self._ledger.read(layout.log, deadline=deadline))
                )
            case do.ReadReports(ticket=ticket, stage=stage):
                view = self._ledger.read(layout.reports(stage), deadline=deadline)
                return see.ReportsRead(ticket, stage, self._records.reports_in(view))
            case do.Create():
                return self._create(request, deadline)
            case do.ReadBack(ticket=ticket, record=record):
                key = layout.key(record)
                found = self._ledger.read(key, deadline=deadline).get(key)
                return see.Found(ticket, decode(found.key, found.value) if found else None)

    def _take_lease(self, deadline: float) -> float:
        with suppress(LedgerUnavailable, SessionLost):  # an old one is renewed no more in any case
            self._release(deadline)  # an identity whose record was deleted may still have a lease
        self._session = self._ledger.open_session(self._ttl, deadline=deadline)
        self._renewed = self._session.renewed_at
        return self._renewed

    def _join(self, ticket: int, member: Member, deadline: float) -> see.Joined:
        assert self._session is not None
        layout = self._layout
        joined = self._joined = self._session.join(
            layout.members,
            layout.name(member.node),
            encode(member),
            reads=(layout.log,),
            deadline=deadline,
        )
        before = [one for one in joined.members.records if one.created < joined.record.created]
        for one in before:
            if not one.lease:  # it would lead for ever
                raise misplaced(one.key, "has no lease, and every node's record has one")
        names = tuple(one.name for one in before)
        return see.Joined(ticket, names, self.log_in(joined.views[layout.log]))

    def _create(self, request: do.Create, deadline: float) -> see.Answer:
        if self._session is None or self._joined is None:
            return see.OwnRecordGone(request.ticket)
        first = request.records[0]
        generation = _generation(first)
        values = self._layout.values(request.records)
        try:
            lease = self._leases.get(generation)
            if lease is None:  # this is the generation's first record
                lease = self._session.grant_lease(_GENERATION_TTL, deadline=deadline)
                self._leases[generation] = lease
            outcome = self._session.create(
                values, guard=self._joined.record, lease=lease, deadline=deadline
            )
        except LeaseGone as error:
            _log.warning("the lease of generation %d is over: %s", generation, error)
            self._leases.pop(generation, None)
            return see.Unanswered(request.ticket)
        match outcome:
            case Exists(records=records):
                key = self._layout.key(first)
                there = next((one for one in records if one.key == key), records[0])
                return see.Existed(request.ticket, decode(there.key, there.value))
            case GuardGone():
                return see.OwnRecordGone(request.ticket)
            case created:
                self._note_written(first, created.records)
                return see.Created(request.ticket)

    def _note_written(self, first: Record, written: tuple[Stored, ...]) -> None:
        log = self._layout.log
        self._written |= {one.key for one in written if one.key.startswith(log)}
        if isinstance(first, Assignment):
            self._sealed = (first.stage, written[0].created)

    def log_in(self, view: View) -> RunHistory:
        """The log that ``view`` shows; the leases of its generations are remembered.

        :raises ConfigError: a record is not one of ours, or lies where it does not belong.
        """
        log = self._records.log_in(view)
        self._leases |= self._records.leases_in(view)
        return log

    def known(self, scope: str) -> View | None:
        """The state of ``scope`` at a moment in this identity's time, if that is known: a watch can
        go on from it.
        """
        joined = self._joined
        if joined is None:
            return None
        if scope in joined.views:
            return joined.views[scope]
        if scope == self._layout.members:
            # The others' values were not read; there are none if this node came first.
            return joined.members if len(joined.members.records) == 1 else None
        if scope.startswith(self._layout.members):
            return joined.members.only(scope)
        if self._sealed is not None and scope == self._layout.reports(self._sealed[0]):
            return View((), self._sealed[1])  # nobody can report on a round before it is sealed
        return None

    # What needs no answer.

    def keep_generation(self, generation: int, deadline: float) -> bool:
        """Renew the generation's lease from now on; False if the ledger did not answer."""
        lease = self._leases.get(generation)
        if self._session is None or lease is None:
            return True
        try:
            self._session.keep_alive(lease, deadline=deadline)
        except LedgerUnavailable:
            return False
        except (LeaseGone, SessionLost) as error:
            _log.warning("the lease of generation %d cannot be kept: %s", generation, error)
        return True

    def sweep(self, before: Stage, log: View | None, deadline: float) -> None:
        """Delete what is stale before that stage, as far as ``log`` and this node know. What stays,
        expires.
        """
        if self._session is None or self._joined is None:
            return
        keys = {one.key for one in log.records} if log else set()
        scopes = self._layout.stale(keys | self._written, before)
        try:
            for start in range(0, len(scopes), _SCOPES):
                some = scopes[start : start + _SCOPES]
                if not self._session.delete(*some, guard=self._joined.record, deadline=deadline):
                    return
                self._written.difference_update(some)
        except (LedgerUnavailable, SessionLost) as error:
            _log.info("what is stale before %s stays until it expires: %s", before, error)

    def leave(self, deadline: float) -> str:
        """End the session, and with it the own record; empty, or why that failed, so that they will
        expire.
        """
        try:
            self._release(deadline)
        except LedgerError as error:  # whatever it is, this node's part is over
            _log.warning("this node's lease could not be ended, and will expire: %s", error)
            return str(error)
        return ""

    def _release(self, deadline: float) -> None:
        session = self._session
        if session is not None and session.state is not SessionState.LOST:
            self.forget()
            session.release(deadline=deadline)


def _generation(record: Record) -> int:
    match record:
        case Member():
            raise TypeError("a member record is written by joining")
        case _:
            return record.generation
