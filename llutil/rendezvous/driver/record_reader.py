"""Reads the run's records out of views of the store.

It knows what was in the last views: a leader looks at all members whenever one of them comes, and
what it has seen is not decoded again. A record that is not one of ours is refused by name. Used by
one thread. This module may import nothing but ``llutil.ledgers`` and the room's values.
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

__all__ = ["RecordReader", "misplaced"]

R = TypeVar("R", bound=Record)


class RecordReader:
    """The records of the run that ``layout`` describes."""

    def __init__(self, layout: RecordKeys) -> None:
        self._layout = layout
        self._decoded: dict[type[Record], dict[tuple[str, int], Record]] = {}

    def log_in(self, view: View) -> RunHistory:
        """The run's log that ``view`` shows.

        :raises ConfigError: a record is not one of ours, or lies where it does not belong.
        """
        records = self._records(Marker, view)
        for one, record in zip(view.records, records, strict=True):
            place = self._layout.key(record)
            if not isinstance(record, Assignment | Verdict | Marker) or place != one.key:
                kind = type(record).__name__.lower()
                raise misplaced(one.key, f"is a {kind} that belongs under {place!r}")
        return RunHistory().with_records(records)

    def leases_in(self, view: View) -> dict[int, str]:
        """The leases of the generations, by number, that a view of the run's log shows."""
        records = self._records(Marker, view)
        return {
            record.generation: one.lease
            for one, record in zip(view.records, records, strict=True)
            if one.lease and not isinstance(record, Member)
        }

    def members_in(self, view: View) -> tuple[Member, ...]:
        """The members that ``view`` shows. :raises ConfigError: a record is something else."""
        return _all(Member, view, self._records(Member, view))

    def reports_in(self, view: View) -> tuple[Report, ...]:
        """The reports that ``view`` shows. :raises ConfigError: a record is something else."""
        return _all(Report, view, self._records(Report, view))

    def _records(self, kind: type[Record], view: View) -> tuple[Record, ...]:
        """The records in a view of the place where ``kind`` is kept."""
        known = self._decoded.get(kind, {})
        found: dict[tuple[str, int], Record] = {}
        for one in view.records:
            name = (one.key, one.created)
            found[name] = known[name] if name in known else decode(one.key, one.value)
        self._decoded[kind] = found
        return tuple(found.values())


def _all(kind: type[R], view: View, records: tuple[Record, ...]) -> tuple[R, ...]:
    """``records``, which must all be of that kind."""
    for one, record in zip(view.records, records, strict=True):
        if not isinstance(record, kind):
            raise misplaced(one.key, f"is a {type(record).__name__.lower()}")
    return tuple(record for record in records if isinstance(record, kind))


def misplaced(key: str, what: str) -> ConfigError:
    """The error that refuses a record of somebody else."""
    return ConfigError(
        f"the record {key!r} in the ledger {what}. Something else writes under this run id: use "
        "another run id or another namespace. Nothing was changed"
    )
