"""Reads the run's records out of views of the store, and leaves out what is none of them.

A store is shared, and versions differ. So what cannot be read, or lies where it does not belong, is
ignored, and its key is named once in the log: no single record of somebody else ends a job. What it
must mean for a node that is new in the run is ``VersionCheck``'s to say.

It knows what was in the last views: a leader looks at all members whenever one of them comes, and
what it has seen is not decoded again. Used by one thread. This module may import nothing but
``llutil.ledgers`` and the room's values.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from llutil.ledgers.protocol import Record as LedgerRecord
from llutil.ledgers.protocol import View
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

_Read = Record | ForeignRecord


class RecordReader:
    """The records of the run that ``keys`` describes."""

    def __init__(self, keys: RecordKeys) -> None:
        self._keys = keys
        self._last: dict[str, dict[tuple[str, int], _Read]] = {}
        """What was read in the last view of each kind, by key and by when it was created."""
        self._named: set[str] = set()
        """The keys of the records that the log has named as ignored."""

    def read_history(self, view: View) -> RunHistory:
        """The run's log that ``view`` shows."""
        return RunHistory().with_records(record for _, record in self._of_log(view))

    def read_leases(self, view: View) -> dict[int, str]:
        """The leases of the generations, by number, that a view of the run's log shows."""
        return {one.generation: stored.lease for stored, one in self._of_log(view) if stored.lease}

    def read_log_keys(self, view: View) -> set[str]:
        """The keys of the run's own records in a view of its log."""
        return {stored.key for stored, _ in self._of_log(view)}

    def read_members(self, view: View) -> tuple[Member, ...]:
        """The members that ``view`` shows, in order of arrival."""
        return tuple(
            record
            for stored, record in self._ours("members", view)
            if isinstance(record, Member) and self.has_lease(stored)
        )

    def read_reports(self, view: View) -> tuple[Report, ...]:
        """The reports that ``view`` shows."""
        found = self._ours("reports", view)
        return tuple(record for _, record in found if isinstance(record, Report))

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

    def _of_log(self, view: View) -> Iterator[tuple[LedgerRecord, Assignment | Verdict | Marker]]:
        for stored, record in self._ours("log", view):
            if isinstance(record, Assignment | Verdict | Marker):
                yield stored, record

    def _ours(self, name: str, view: View) -> list[tuple[LedgerRecord, Record]]:
        """The records of the run in a view of the place that is called ``name`` here."""
        last = self._last.get(name, {})
        found: dict[tuple[str, int], _Read] = {}
        ours: list[tuple[LedgerRecord, Record]] = []
        for stored in view.records:
            version = stored.key, stored.created
            read = found[version] = last[version] if version in last else self.record_in(stored)
            if not isinstance(read, ForeignRecord):
                ours.append((stored, read))
        self._last[name] = found
        return ours

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
