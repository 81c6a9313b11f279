"""What the ledgers of a process share: ``MemoryStore``, and the transactions that change it.

It starts no thread, and nothing in it runs out. Watchers are told in the thread that makes the
change, after the store has let go of its lock. This module may import nothing but the standard
library and what lies in this folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Protocol

from llutil.ledgers.keys import by_arrival, holds
from llutil.ledgers.protocol import Record, View

__all__ = ["MemoryStore", "Transaction", "Watcher"]


class Watcher(Protocol):
    """A ledger on the store, as far as the store tells it of changes."""

    room: str
    """Its namespace."""
    watched: list[str]
    """The scopes of its open watches; changed within transactions."""
    tell: Callable[[], None]
    """Tells it that something changed which concerns it."""

    def holds_session(self, lease: str) -> bool:
        """Whether one of its sessions has that name."""


class MemoryStore:
    """What the ledgers of a process share. They change it in transactions, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Guards all below."""
        self.revision = 1
        self.leases: set[str] = set()
        self.ledgers: set[Watcher] = set()
        self._records: dict[tuple[str, str], Record] = {}  # by namespace and key
        self._names = count(1)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A time during which nobody else sees or changes the store. Those who watch hear of it
        afterwards.
        """
        transaction = Transaction(self, self._records)
        try:
            with self._lock:
                yield transaction
        finally:
            for ledger in transaction.concerned:
                ledger.tell()

    def new_lease(self) -> str:
        """The name of a lease that starts to live now. Within a transaction."""
        lease = f"{next(self._names):x}"
        self.leases.add(lease)
        return lease


class Transaction:
    """What may be done within a transaction. A key is a pair of namespace and key."""

    def __init__(self, store: MemoryStore, records: dict[tuple[str, str], Record]) -> None:
        self.concerned: set[Watcher] = set()
        self._store = store
        self._records = records

    def get(self, room: str, key: str) -> Record | None:
        """The record, if there is one."""
        return self._records.get((room, key))

    def has(self, room: str, record: Record) -> bool:
        """Whether this very record is still there."""
        return self._records.get((room, record.key)) == record

    def view(self, room: str, scope: str) -> View:
        """The present state of a scope."""
        found = (
            record
            for (where, key), record in self._records.items()
            if where == room and holds(scope, key)
        )
        return View(by_arrival(found), self._store.revision)

    def put(self, room: str, values: Mapping[str, bytes], lease: str) -> tuple[Record, ...]:
        """Put new records, all at one revision."""
        self._store.revision += 1
        records = tuple(
            Record(key, value, self._store.revision, lease) for key, value in values.items()
        )
        for record in records:
            self._records[room, record.key] = record
            self._concern(room, record.key)
        return records

    def delete(self, room: str, scopes: Iterable[str]) -> None:
        """Delete what is in and below the scopes."""
        for scope in scopes:
            self._drop(
                place
                for place in self._records
                if place[0] == room
                and (place[1].startswith(scope) if scope.endswith("/") else place[1] == scope)
            )

    def end(self, lease: str) -> None:
        """End a lease, its session and its records."""
        self._store.leases.discard(lease)
        self._drop(place for place, record in self._records.items() if record.lease == lease)
        self.concerned |= {ledger for ledger in self._store.ledgers if ledger.holds_session(lease)}

    def _drop(self, places: Iterator[tuple[str, str]]) -> None:
        self._store.revision += 1
        for room, key in list(places):
            del self._records[room, key]
            self._concern(room, key)

    def _concern(self, room: str, key: str) -> None:
        self.concerned |= {
            ledger
            for ledger in self._store.ledgers
            if ledger.room == room and any(holds(scope, key) for scope in ledger.watched)
        }
