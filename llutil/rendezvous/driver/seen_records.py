"""What was read in the views of one scope, so that a record which was read once is not read again.

A leader looks at the records of a thousand nodes whenever one of them comes. A ledger's watch gives
the same objects again for what has not changed; to find them takes no step of Python for each. Used
by one thread. This module may import nothing but ``llutil.ledgers``.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Generic, Literal, TypeVar

from llutil.ledgers.protocol import Record

__all__ = ["SeenRecords"]

T = TypeVar("T")

_SPARE = 64
"""How many versions are remembered beside twice those of the last view."""


class SeenRecords(Generic[T]):
    """``read`` returns what a record means; None if it is to be left out. It never returns anything
    else that is false.
    """

    def __init__(self, read: Callable[[Record], T | None]) -> None:
        self._read = read
        self._records: tuple[Record, ...] = ()
        """Those of the last view."""
        self._meanings: list[T | Literal[False]] = []
        """What each of them means; False for what is left out."""
        self._found: tuple[T, ...] = ()
        """The same without what is left out."""
        self._by_version: dict[tuple[str, int], T | Literal[False]] = {}
        """Meanings by key and creation: a read, unlike a watch, gives other objects."""

    def of(self, records: tuple[Record, ...]) -> tuple[T, ...]:
        """What the records of a view mean, in their order."""
        known, self._records = self._records, records
        if records is known:
            return self._found
        if len(records) >= len(known) and all(map(is_, known, records)):
            new = [self._meaning(record) for record in records[len(known) :]]
            self._meanings += new
            self._found += tuple(filter(None, new))  # type: ignore[arg-type]  # False is no T
        else:
            by_id = dict(zip(map(id, known), self._meanings, strict=True))
            self._meanings = self._completed(list(map(by_id.get, map(id, records))), records)
            self._found = tuple(filter(None, self._meanings))  # type: ignore[arg-type]  # as above
        if len(self._by_version) > 2 * len(records) + _SPARE:
            versions = ((one.key, one.created) for one in records)
            self._by_version = dict(zip(versions, self._meanings, strict=True))
        return self._found

    def _completed(
        self, meanings: list[T | Literal[False] | None], records: tuple[Record, ...]
    ) -> list[T | Literal[False]]:
        """``meanings`` of ``records``, with those that are None."""
        place = -1
        for _ in range(meanings.count(None)):
            place = meanings.index(None, place + 1)
            meanings[place] = self._meaning(records[place])
        return meanings  # type: ignore[return-value]  # none is None any more

    def _meaning(self, record: Record) -> T | Literal[False]:
        version = record.key, record.created
        found = self._by_version.get(version)
        if found is None:
            found = self._by_version[version] = self._read(record) or False
        return found
