"""Decodes a run's records from views of the store.

The reader remembers what it decoded from the last view of each kind: a leader gets a view of all
members whenever one of them comes, and does not decode the others again. A record that is not of
this package is refused; the error names its key. Used by one thread. This module may import nothing
but ``llutil.ledgers`` and the room's values.
"""

from __future__ import annotations

from typing import TypeVar

from llutil.errors import ConfigError
from llutil.ledgers.protocol import View
from llutil.rendezvous.protocol.record_codec import decode
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

__all__ = ["RecordReader", "foreign_record_error"]

R = TypeVar("R", bound=Record)


class RecordReader:
    """The records of the run that ``keys`` describes."""

    def __init__(self, keys: RecordKeys) -> None:
        self._keys = keys
        self._decoded: dict[type[Record], dict[tuple[str, int], Record]] = {}

    def read_history(self, view: View) -> RunHistory:
        """The run's log that ``view`` shows.

        :raises ConfigError: a record is not of this package, or has the key of another record.
        """
        records = self._records(Marker, view)
        for one, record in zip(view.records, records, strict=True):
            own_key = self._keys.key(record)
            if not isinstance(record, Assignment | Verdict | Marker) or own_key != one.key:
                kind = type(record).__name__.lower()
                raise foreign_record_error(one.key, f"is a {kind} that belongs under {own_key!r}")
        return RunHistory().with_records(records)

    def read_leases(self, view: View) -> dict[int, str]:
        """The leases of the generations in a view of the run's log, by generation."""
        records = self._records(Marker, view)
        return {
            record.generation: one.lease
            for one, record in zip(view.records, records, strict=True)
            if one.lease and not isinstance(record, Member)
        }

    def read_members(self, view: View) -> tuple[Member, ...]:
        """The members that ``view`` shows. :raises ConfigError: a record is something else."""
        return _only_of_kind(Member, view, self._records(Member, view))

    def read_reports(self, view: View) -> tuple[Report, ...]:
        """The reports that ``view`` shows. :raises ConfigError: a record is something else."""
        return _only_of_kind(Report, view, self._records(Report, view))

    def _records(self, kind: type[Record], view: View) -> tuple[Record, ...]:
        """The records in ``view``, which shows the folder for records of that kind."""
        known = self._decoded.get(kind, {})
        found: dict[tuple[str, int], Record] = {}
        for one in view.records:
            version = (one.key, one.created)
            found[version] = known[version] if version in known else decode(one.key, one.value)
        self._decoded[kind] = found
        return tuple(found.values())


def _only_of_kind(kind: type[R], view: View, records: tuple[Record, ...]) -> tuple[R, ...]:
    """``records``, which must all be of that kind."""
    for one, record in zip(view.records, records, strict=True):
        if not isinstance(record, kind):
            raise foreign_record_error(one.key, f"is a {type(record).__name__.lower()}")
    return tuple(record for record in records if isinstance(record, kind))


def foreign_record_error(key: str, what: str) -> ConfigError:
    """The error for a record that is not of this package, or under the wrong key."""
    return ConfigError(
        f"the record {key!r} in the ledger {what}. Something else writes under this run id: use "
        "another run id or another namespace. Nothing was changed"
    )
