"""A ledger inside one process: any number of ``MemoryLedger`` on one ``MemoryStore``.

Jobs of one node use it, because they need no etcd. Tests use it for several nodes in threads that
share a store. It starts no thread, and nothing in it expires. A session lives until it is released,
until ``MemoryLedger.end_lease`` ends it by its name, or until its ledger is closed. A granted lease
lives until ``end_lease`` ends it.

Callbacks are called in the thread that makes the change, after the store has released its lock.
This module may import the standard library, ``llutil.errors`` and this room, and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from llutil.errors import ConfigError
from llutil.ledgers.errors import (
    LeaseGone,
    LedgerClosed,
    LedgerConflict,
    LedgerUnavailable,
    SessionLost,
)
from llutil.ledgers.keys import Namespace, check_folder, check_key, check_scope
from llutil.ledgers.memory_store import MemoryStore
from llutil.ledgers.protocol import (
    Created,
    CreateResult,
    Exists,
    GuardGone,
    Joined,
    MayComeBack,
    Record,
    SessionState,
    View,
)

__all__ = ["MemoryLedger", "MemorySession", "MemoryWatch"]


class MemoryLedger:
    """``llutil.ledgers.Ledger`` on a ``MemoryStore``. Tests can end any session through it."""

    def __init__(
        self, store: MemoryStore, on_change: Callable[[], None], *, namespace: str = "llutil"
    ) -> None:
        self.store = store
        self.namespace = Namespace(namespace).prefix
        self.watched_scopes: list[str] = []
        """The scopes of its open watches. Changed within transactions only."""
        self.on_change = on_change
        self._sessions: list[MemorySession] = []
        self._pid = os.getpid()
        self._closed = False
        with store.transaction():
            store.ledgers.add(self)

    def check(self, deadline: float | None = None) -> None:
        """:raises LedgerClosed, LedgerUnavailable: closed, forked, or called after its deadline."""
        if self._pid != os.getpid():
            raise LedgerClosed(f"this ledger lives in process {self._pid}, not in {os.getpid()}")
        if self._closed:
            raise LedgerClosed("this ledger in memory is closed")
        if deadline is not None and time.monotonic() >= deadline:
            raise LedgerUnavailable("the deadline had passed; nothing was done")

    def holds_session(self, lease: str) -> bool:
        """Whether one of its sessions has that name."""
        return any(session.lease == lease for session in self._sessions)

    def open_session(self, ttl: float, *, deadline: float) -> MemorySession:
        """Start a session."""
        self.check(deadline)
        if ttl <= 0:
            raise ConfigError(f"lease_ttl is {ttl:g} s; wanted more than 0")
        with self.store.transaction():
            session = MemorySession(self, ttl, self.store.new_lease())
            self._sessions.append(session)
        return session

    def read(self, scope: str, *, deadline: float) -> View:
        """The present state of ``scope``."""
        self.check(deadline)
        with self.store.transaction() as txn:
            return txn.view(self.namespace, check_scope(scope))

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> MemoryWatch:
        """Watch ``scope``. Here ``since`` saves no request."""
        view = self.read(scope, deadline=deadline)
        with self.store.transaction():
            self.watched_scopes.append(scope)
        return MemoryWatch(self, scope, since if since and since.records == view.records else view)

    def end_lease(self, lease: str, *, deadline: float) -> None:
        """End a session or lease by its name."""
        self.check(deadline)
        with self.store.transaction() as txn:
            txn.end_lease(lease)

    def close(self) -> None:
        """End its sessions and watches, as if their process had died."""
        if self._closed or self._pid != os.getpid():
            return
        with self.store.transaction() as txn:
            self._closed = True
            self.store.ledgers.discard(self)
            for session in self._sessions:
                txn.end_lease(session.lease)


class MemoryWatch:
    """``llutil.ledgers.Watch`` on a ``MemoryStore``. Made by ``MemoryLedger.watch``."""

    def __init__(self, ledger: MemoryLedger, scope: str, view: View) -> None:
        self._ledger = ledger
        self._scope = scope
        self._view = view
        self._closed = False

    def view(self) -> View:
        """The present state."""
        self._ledger.check()
        if not self._closed:
            with self._ledger.store.transaction() as txn:
                view = txn.view(self._ledger.namespace, self._scope)
            if view.records != self._view.records:
                self._view = view
        return self._view

    def close(self) -> None:
        """Stop watching."""
        if not self._closed:
            with self._ledger.store.transaction():
                self._closed = True
                self._ledger.watched_scopes.remove(self._scope)


class MemorySession(MayComeBack):
    """``llutil.ledgers.Session`` on a ``MemoryStore``. Made by ``MemoryLedger.open_session``."""

    def __init__(self, ledger: MemoryLedger, ttl: float, lease: str) -> None:
        self.ttl = ttl
        self.lease = lease
        self._ledger = ledger
        self._store = ledger.store

    @property
    def renewed_at(self) -> float:
        """Now, because the store is always reachable."""
        return time.monotonic()

    @property
    def revocation(self) -> None:
        """None, because the store ends with this process."""

    @property
    def state(self) -> SessionState:
        """The state now. A session in memory is never suspended."""
        return SessionState.CONNECTED if self.lease in self._store.leases else SessionState.LOST

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record; read the folder's keys and ``reads``."""
        self._ledger.check(deadline)
        namespace = self._ledger.namespace
        key = check_key(check_folder(folder) + name)
        scopes = [check_scope(scope) for scope in reads]
        with self._store.transaction() as txn:
            own = txn.get(namespace, key)
            if own is None:
                if self.lease not in self._store.leases:
                    raise SessionLost(f"session {self.lease} in memory is over")
                (own,) = txn.put(namespace, {key: value}, self.lease)
            if (own.value, own.lease) != (value, self.lease):
                raise LedgerConflict(
                    f"join as {key!r}: session {own.lease} has a record of that name; "
                    "every node needs a name of its own"
                )
            existing = txn.view(namespace, folder)
            members = (one if one == own else replace(one, value=b"") for one in existing.records)
            views = {scope: txn.view(namespace, scope) for scope in scopes}
            return Joined(own, View(tuple(members), existing.revision), views)

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> CreateResult:
        """Create all records or none."""
        self._ledger.check(deadline)
        namespace = self._ledger.namespace
        keys = [check_key(key) for key in values]
        with self._store.transaction() as txn:
            if not txn.has(namespace, guard):
                return GuardGone()
            if existing := tuple(record for key in keys if (record := txn.get(namespace, key))):
                return Exists(existing)
            if lease not in self._store.leases:
                raise LeaseGone(f"create {', '.join(keys)}: lease {lease} in memory is over")
            return Created(txn.put(namespace, values, lease))

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        """Delete everything in and below the scopes."""
        self._ledger.check(deadline)
        for scope in scopes:
            check_scope(scope)
        with self._store.transaction() as txn:
            guard_exists = txn.has(self._ledger.namespace, guard)
            if guard_exists:
                txn.delete(self._ledger.namespace, scopes)
            return guard_exists

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        """A lease for records that outlive nodes. It does not expire."""
        self._ledger.check(deadline)
        if ttl <= 0:
            raise ConfigError(f"a lease of {ttl:g} s was asked for; wanted more than 0")
        with self._store.transaction():
            return self._store.new_lease()

    def keep_alive(self, lease: str, *, deadline: float) -> None:
        """Check that the lease lives. There is nothing to renew."""
        self._ledger.check(deadline)
        if lease not in self._store.leases:
            raise LeaseGone(f"lease {lease} in memory is over")

    def release(self, *, deadline: float) -> None:
        """End the session at once."""
        self._ledger.check(deadline)
        with self._store.transaction() as txn:
            txn.end_lease(self.lease)
