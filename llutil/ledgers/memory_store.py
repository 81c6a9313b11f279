"""``MemoryStore``: what the ledgers of a process share, and the transactions that change it.

It starts no thread, and nothing in it expires. Ledgers are told of changes in the thread that makes
the change, after the store has released its lock. This module may import the standard library and
this room, and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Protocol

from llutil.ledgers.keys import by_arrival, holds
from llutil.ledgers.protocol import Record, View

__all__ = ["MemoryStore", "StoreListener", "Transaction"]


class StoreListener(Protocol):
    """A ledger on the store: what the store needs to tell it of changes."""

    namespace: str
    """The prefix of its namespace."""
    watched_scopes: list[str]
    """The scopes of its open watches. Changed within transactions only."""
    on_change: Callable[[], None]
    """Called after a change of a watched scope or of one of its sessions."""

    def holds_session(self, lease: str) -> bool:
        """Whether one of its sessions has that name."""


class MemoryStore:
    """What the ledgers of a process share. They change it in transactions, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Guards all attributes below."""
        self.revision = 1
        self.leases: set[str] = set()
        self.ledgers: set[StoreListener] = set()
        self._records: dict[tuple[str, str], Record] = {}  # by namespace and key
        self._names = count(1)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A time in which nobody else reads or changes the store. Affected ledgers are told
        afterwards.
        """
        transaction = Transaction(self, self._records)
        try:
            with self._lock:
                yield transaction
        finally:
            for ledger in transaction.affected:
                ledger.on_change()

    def new_lease(self) -> str:
        """Start a new lease and return its name. Called within a transaction."""
        lease = f"{next(self._names):x}"
        self.leases.add(lease)
        return lease


class Transaction:
    """Reads and changes within one transaction. A full key is a pair of namespace and key."""

    def __init__(self, store: MemoryStore, records: dict[tuple[str, str], Record]) -> None:
        self.affected: set[StoreListener] = set()
        self._store = store
        self._records = records

    def get(self, namespace: str, key: str) -> Record | None:
        """The record, if there is one."""
        return self._records.get((namespace, key))

    def has(self, namespace: str, record: Record) -> bool:
        """Whether this record, and not a newer one with its key, exists."""
        return self._records.get((namespace, record.key)) == record

    def view(self, namespace: str, scope: str) -> View:
        """The present state of a scope."""
        found = (
            record
            for (key_namespace, key), record in self._records.items()
            if key_namespace == namespace and holds(scope, key)
        )
        return View(by_arrival(found), self._store.revision)

    def put(self, namespace: str, values: Mapping[str, bytes], lease: str) -> tuple[Record, ...]:
        """Put new records, all at one revision."""
        self._store.revision += 1
        records = tuple(
            Record(key, value, self._store.revision, lease) for key, value in values.items()
        )
        for record in records:
            self._records[namespace, record.key] = record
            self._mark_affected(namespace, record.key)
        return records

    def delete(self, namespace: str, scopes: Iterable[str]) -> None:
        """Delete everything in and below the scopes."""
        for scope in scopes:
            self._remove(
                full_key
                for full_key in self._records
                if full_key[0] == namespace
                and (full_key[1].startswith(scope) if scope.endswith("/") else full_key[1] == scope)
            )

    def end_lease(self, lease: str) -> None:
        """End a lease, its session and its records."""
        self._store.leases.discard(lease)
        self._remove(
            full_key for full_key, record in self._records.items() if record.lease == lease
        )
        self.affected |= {ledger for ledger in self._store.ledgers if ledger.holds_session(lease)}

    def _remove(self, keys: Iterator[tuple[str, str]]) -> None:
        self._store.revision += 1
        for namespace, key in list(keys):
            del self._records[namespace, key]
            self._mark_affected(namespace, key)

    def _mark_affected(self, namespace: str, key: str) -> None:
        self.affected |= {
            ledger
            for ledger in self._store.ledgers
            if ledger.namespace == namespace
            and any(holds(scope, key) for scope in ledger.watched_scopes)
        }
