"""Writes records of the run, finds them again, beside what others have put under their keys, and
deletes them.

What is not the run's is not ours to delete. So a record whose key is taken by such a thing lies
under a spare key (see ``RecordKeys``), where every reader of the folder finds it.

That a round has one assignment and one verdict does not depend on this. Only the leader writes
them, guarded by its own record, after it has read the whole log, and one write at a time. A key
that must be new only tells it whether an earlier attempt of its own was applied. This module may
import nothing but ``llutil.ledgers`` and the room's values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llutil.ledgers.protocol import Created, Exists, GuardGone, Ledger, Session
from llutil.ledgers.protocol import Record as LedgerRecord
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.protocol.record_codec import ForeignRecord
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Record

__all__ = ["RecordWriter"]

_SCOPES = 60
"""How many scopes one transaction deletes. etcd's default limit is 128 operations in one."""


class RecordWriter:
    """The writes of one node in the run that ``keys`` describes."""

    def __init__(self, keys: RecordKeys, reader: RecordReader) -> None:
        self._keys = keys
        self._reader = reader
        self._written: set[str] = set()
        """The log's keys that this node wrote and has not deleted. A watch may not have shown them
        yet.
        """

    def create(
        self,
        session: Session,
        records: tuple[Record, ...],
        guard: LedgerRecord,
        lease: str,
        deadline: float,
    ) -> Created | GuardGone | Record:
        """Write all of ``records``; or the record of the run that is there already, the first one's
        if it is.

        :raises LedgerError: as ``Session.create`` does.
        """
        spare = 0
        while True:
            values = self._keys.values(records, spare)
            outcome = session.create(values, guard=guard, lease=lease, deadline=deadline)
            if isinstance(outcome, Created):
                self._written |= {key for key in values if key.startswith(self._keys.log)}
            if not isinstance(outcome, Exists):
                return outcome
            first = self._keys.spare_key(records[0], spare)
            for stored in sorted(outcome.records, key=lambda one: one.key != first):
                there = self._reader.record_in(stored)
                if not isinstance(there, ForeignRecord):
                    return there
            spare += 1

    def find(self, ledger: Ledger, record: Record, deadline: float) -> Record | None:
        """What lies where ``record`` was to be written.

        :raises LedgerError: as ``Ledger.read`` does.
        """
        spare = 0
        while True:
            key = self._keys.spare_key(record, spare)
            stored = ledger.read(key, deadline=deadline).get(key)
            there = self._reader.record_in(stored) if stored else None
            if not isinstance(there, ForeignRecord):
                return there
            spare += 1

    def forget(self) -> None:
        """What this node wrote lies in another store than the one that it writes into now."""
        self._written = set()

    def delete_stale(
        self,
        session: Session,
        stale: Callable[[Iterable[str]], tuple[str, ...]],
        known: Iterable[str],
        guard: LedgerRecord,
        deadline: float,
    ) -> bool:
        """Delete what ``stale`` finds among these keys: those of the log that this node wrote, and
        ``known``. Returns whether this node could; its own record ``guard`` may be gone.

        :raises LedgerError: as ``Session.delete`` does.
        """
        scopes = stale(self._written.union(known))
        for start in range(0, len(scopes), _SCOPES):
            some = scopes[start : start + _SCOPES]
            if not session.delete(*some, guard=guard, deadline=deadline):
                return False
            self._written.difference_update(some)
        return True
