"""Reads the run's records out of views of the store, and leaves out what is none of them.

A store is shared, and versions differ. So what cannot be read, or lies where it does not belong, is
ignored, and its key is named once in the log: no single record of somebody else ends a job. What it
must mean for a node that is new in the run is ``VersionCheck``'s to say.

What was in the last views is not read again. Used by one thread. This module may import nothing but
``llutil.ledgers`` and the room's values.
"""

from __future__ import annotations

import logging

from llutil.ledgers.protocol import Record as LedgerRecord
from llutil.ledgers.protocol import View
from llutil.rendezvous.driver.seen_records import SeenRecords
from llutil.rendezvous.protocol.gate_records import Gate, GateAnswer, GateDecision, Wish
from llutil.rendezvous.protocol.record_codec import ForeignRecord, decode, short
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import (
    Assignment,
    Marker,
    Member,
    Record,
    Report,
    Verdict,
)
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = ["RecordReader"]

_log = logging.getLogger(__name__)

_MOST_NAMED = 20
"""Records that are named as ignored. Who writes into the run's place may do so for ever."""

_ReportRecord = Report | Wish
LogRecord = Assignment | Verdict | Marker | Gate | GateDecision


class RecordReader:
    """The records of the run that ``keys`` describes."""

    def __init__(self, keys: RecordKeys) -> None:
        self._keys = keys
        self._log = SeenRecords(self._read_log_record)
        self._members = SeenRecords(self._read_member)
        self._reports: SeenRecords[_ReportRecord] = SeenRecords(self._read_report)
        self._answers = SeenRecords(self._read_answer)
        self._named: set[str] = set()
        """The keys of the records that the log has named as ignored."""

    def read_history(self, view: View) -> RunHistory:
        """The run's log that ``view`` shows."""
        return RunHistory().with_records(record for _, record in self._log.of(view.records))

    def read_leases(self, view: View) -> dict[int, str]:
        """The leases of the generations, by number, that a view of the run's log shows."""
        seen = self._log.of(view.records)
        return {record.generation: stored.lease for stored, record in seen if stored.lease}

    def read_log_keys(self, view: View) -> set[str]:
        """The keys of the run's own records in a view of its log."""
        return {stored.key for stored, _ in self._log.of(view.records)}

    def read_members(self, view: View) -> tuple[Member, ...]:
        """The members that ``view`` shows, in order of arrival."""
        return self._members.of(view.records)

    def read_reports(self, view: View) -> tuple[_ReportRecord, ...]:
        """The reports and wishes that ``view`` shows."""
        return self._reports.of(view.records)

    def read_wish_keys(self, view: View) -> set[str]:
        """The keys of the run's own wishes in a view of the reports on a round."""
        return {
            stored.key
            for stored in view.records
            if self._keys.is_wish_key(stored.key) and isinstance(self.record_in(stored), Wish)
        }

    def read_answers(self, view: View) -> tuple[GateAnswer, ...]:
        """The answers at a gate that ``view`` shows."""
        return self._answers.of(view.records)

    def has_lease(self, member: LedgerRecord) -> bool:
        """Whether a record among the members may be a node's. One without a lease would be there
        for ever.
        """
        if not member.lease:
            self._name(member, "has no lease, and every node's record has one")
        return bool(member.lease)

    def record_in(self, stored: LedgerRecord) -> Record | ForeignRecord:
        """The record that lies there; or what lies there instead, which the log then names."""
        read = self._read(stored)
        if isinstance(read, ForeignRecord):
            self._name(stored, read.what)
        return read

    def newest_of_log(self, view: View) -> Record | ForeignRecord | None:
        """The newest record in a view of the log, of whichever version; None if there is none."""
        found = []
        for stored in view.records:
            read, stage = self._read(stored), self._keys.log_stage(stored.key)
            if stage and not (isinstance(read, ForeignRecord) and read.version is None):
                found.append((stage, read))
        return max(found, key=lambda one: one[0], default=(None, None))[1]

    def _read_log_record(self, stored: LedgerRecord) -> tuple[LedgerRecord, LogRecord] | None:
        record = self.record_in(stored)
        return (stored, record) if isinstance(record, LogRecord) else None

    def _read_member(self, stored: LedgerRecord) -> Member | None:
        record = self.record_in(stored)
        return record if isinstance(record, Member) and self.has_lease(stored) else None

    def _read_report(self, stored: LedgerRecord) -> _ReportRecord | None:
        record = self.record_in(stored)
        return record if isinstance(record, _ReportRecord) else None

    def _read_answer(self, stored: LedgerRecord) -> GateAnswer | None:
        record = self.record_in(stored)
        return record if isinstance(record, GateAnswer) else None

    def _read(self, stored: LedgerRecord) -> Record | ForeignRecord:
        try:
            record = self.decode(stored)
        except ForeignRecord as foreign:
            return foreign
        if not self._keys.is_key_of(stored.key, record):
            kind, place = type(record).__name__.lower(), self._keys.key(record)
            return ForeignRecord(stored.key, f"is a {kind} that belongs under {place!r}")
        return record

    def decode(self, stored: LedgerRecord) -> Record:
        """What a record says, wherever it lies.

        :raises ForeignRecord: it is none that this version can read.
        """
        return decode(stored.key, stored.value)

    def _name(self, stored: LedgerRecord, what: str) -> None:
        if stored.key in self._named or len(self._named) == _MOST_NAMED:
            return
        self._named.add(stored.key)
        _log.warning(
            "the record %r in the ledger is ignored: it %s. It is not of this run, or of a node "
            "with another version of this package%s",
            short(stored.key),
            what,
            "; further ones are not named" if len(self._named) == _MOST_NAMED else "",
        )
