"""``MemoryStore``: what the ledgers of a process share, and the transactions that change it.

Jobs of one node share it within their process. The server of a served ledger shares it among its
clients. A transaction costs what it touches, however much else is in the store.

It starts no thread. A lease that was made with a ttl ends at the first call of ``expire`` after its
deadline; whoever has such leases calls it in time. Ledgers are told of changes in the thread that
makes the change, after the store has released its lock. This module may import the standard library
and this room, and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from llutil.ledgers.errors import SessionLost
from llutil.ledgers.lease_deadlines import LeaseDeadlines
from llutil.ledgers.protocol import Record, View
from llutil.ledgers.record_tree import RecordTree, folder_of

__all__ = ["MemoryStore", "ScopeWatch", "StoreLease", "StoreListener", "Transaction"]


class StoreListener(Protocol):
    """A ledger on the store: what the store needs to tell it of changes."""

    on_change: Callable[[], None]
    """Called after a change of a watched scope or of one of its sessions."""


@dataclass(slots=True, eq=False)
class ScopeWatch:
    """That a ledger watches the scope at ``path``. Changed within transactions only."""

    path: str
    listener: StoreListener
    has_changed: bool = False
    """Whether the scope has changed since the watch's ledger took this back."""


@dataclass(slots=True, eq=False)
class StoreLease:
    """A lease. One without a ttl never expires. Changed within transactions only."""

    ttl: float | None
    listener: StoreListener | None
    """The ledger whose session it is, if it is one's."""
    paths: set[str] = field(default_factory=set)
    """Where its records are."""
    kept: set[str] = field(default_factory=set)
    """The leases that its session renews."""


class MemoryStore:
    """What the ledgers of a process share. They change it in transactions, one at a time.

    Revisions and the names of leases are counted from ``first`` on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, first: int = 1) -> None:
        self._lock = threading.Lock()
        """Guards all attributes below."""
        self.revision = first
        self.leases: dict[str, StoreLease] = {}
        self.ledgers: set[StoreListener] = set()
        self.records = RecordTree()
        self.watches: dict[str, set[ScopeWatch]] = {}  # by the path of their scope
        self._deadlines = LeaseDeadlines(clock)
        self._names = count(first)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A time in which nobody else reads or changes the store. Affected ledgers are told
        afterwards.
        """
        transaction = Transaction(self)
        try:
            with self._lock:
                yield transaction
        finally:
            for ledger in transaction.affected:
                ledger.on_change()

    def new_lease(self, ttl: float | None = None, listener: StoreListener | None = None) -> str:
        """Start a new lease and return its name. Called within a transaction."""
        lease = f"{next(self._names):x}"
        self.leases[lease] = StoreLease(ttl, listener)
        self.renew(lease)
        return lease

    def renew(self, lease: str) -> bool:
        """Begin a lease's ttl anew; False if it is over. Called within a transaction."""
        if found := self.leases.get(lease):
            if found.ttl is not None:
                self._deadlines.set(lease, found.ttl)
            return True
        return False

    def forget_lease(self, lease: str) -> StoreLease | None:
        """What ``Transaction.end_lease`` begins with."""
        self._deadlines.discard(lease)
        return self.leases.pop(lease, None)

    def expire(self) -> float:
        """End the leases that are overdue. The seconds until the next one is; infinite if none will
        be.
        """
        with self.transaction() as transaction:
            for lease in self._deadlines.take_overdue():
                transaction.end_lease(lease)
            return self._deadlines.seconds_left()

    def extend(self, seconds: float) -> None:
        """Give all leases so many seconds more, because their renewals could not be heard."""
        with self._lock:
            self._deadlines.extend(seconds)


class Transaction:
    """Reads and changes within one transaction. ``namespace`` is the prefix of one."""

    def __init__(self, store: MemoryStore) -> None:
        self.affected: set[StoreListener] = set()
        self._store = store

    def get(self, namespace: str, key: str) -> Record | None:
        """The record, if there is one."""
        return self._store.records.get(namespace + key)

    def has(self, namespace: str, record: Record) -> bool:
        """Whether this record, and not a newer one with its key, exists."""
        return self.get(namespace, record.key) == record

    def view(self, namespace: str, scope: str) -> View:
        """The present state of a scope."""
        if scope.endswith("/"):
            return self._view(self._store.records.directly_in(namespace + scope))
        return self._view(filter(None, [self.get(namespace, scope)]))

    def _view(self, records: Iterable[Record]) -> View:
        return View(tuple(records), self._store.revision)

    def session(self, lease: str) -> StoreLease:
        """The lease of a session. :raises SessionLost: the session is over."""
        if found := self._store.leases.get(lease):
            return found
        raise SessionLost(f"session {lease} in memory is over")

    def watch(self, namespace: str, scope: str, listener: StoreListener) -> ScopeWatch:
        """Tell ``listener`` of each change of the scope from now on."""
        watch = ScopeWatch(namespace + scope, listener)
        self._store.watches.setdefault(watch.path, set()).add(watch)
        return watch

    def unwatch(self, watch: ScopeWatch) -> None:
        """Undo ``watch``."""
        watches = self._store.watches[watch.path]
        watches.remove(watch)
        if not watches:
            del self._store.watches[watch.path]

    def put(self, namespace: str, values: Mapping[str, bytes], lease: str) -> tuple[Record, ...]:
        """Put new records, all at one revision."""
        self._store.revision += 1
        records = tuple(
            Record(key, value, self._store.revision, lease) for key, value in values.items()
        )
        for record in sorted(records, key=lambda record: record.key):
            path = namespace + record.key
            if self._store.records.get(path):
                self._remove([path])
            self._store.records.add(path, record)
            if owner := self._store.leases.get(lease):
                owner.paths.add(path)
            self._tell_of(path)
        return records

    def delete(self, namespace: str, scopes: Iterable[str]) -> None:
        """Delete everything in and below the scopes."""
        self._store.revision += 1
        for scope in scopes:
            path = namespace + scope
            if scope.endswith("/"):
                self._remove(list(self._store.records.below(path)))
            elif self.get(namespace, scope):
                self._remove([path])

    def end_lease(self, lease: str) -> None:
        """End a lease, its session and its records. Nothing happens if it is over."""
        if found := self._store.forget_lease(lease):
            self._store.revision += 1
            self._remove(found.paths)
            self._tell(found.listener)

    def _remove(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            record = self._store.records.remove(path)
            if owner := self._store.leases.get(record.lease):
                owner.paths.remove(path)
            self._tell_of(path)

    def _tell_of(self, path: str) -> None:
        for scope in (path, folder_of(path)):
            for watch in self._store.watches.get(scope, ()):
                watch.has_changed = True
                self._tell(watch.listener)

    def _tell(self, listener: StoreListener | None) -> None:
        if listener in self._store.ledgers:
            self.affected.add(listener)
