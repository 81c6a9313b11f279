"""A ledger inside one process: any number of ``MemoryLedger`` on one ``MemoryStore``.

Jobs of one node use it, because they need no etcd. Tests use it for several nodes in threads that
share a store. The server of a served ledger has one for each client, on a store that they share.

It starts no thread. A session lives until it is released, until ``MemoryLedger.end_lease`` ends it
by its name, or until its ledger is closed. A granted lease lives until ``end_lease`` ends it. The
leases of a ledger that ``expires`` end too when they were not renewed for their ttl: a session by
``MemorySession.renew``, a granted lease by the sessions that keep it alive.

Callbacks are called in the thread that makes the change, after the store has released its lock.
This module may import the standard library, ``llutil.errors`` and this room, and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from llutil.errors import ConfigError
from llutil.ledgers.errors import (
    LeaseGone,
    LedgerClosed,
    LedgerConflict,
    LedgerUnavailable,
)
from llutil.ledgers.keys import Namespace, check_folder, check_key, check_scope
from llutil.ledgers.memory_store import MemoryStore, ScopeWatch
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
    """``llutil.ledgers.Ledger`` on a ``MemoryStore``. Tests can end any session through it.

    If it ``expires``, its sessions and the leases that they grant expire. ``MemoryStore.expire``
    has to be called then.
    """

    def __init__(
        self,
        store: MemoryStore,
        on_change: Callable[[], None],
        *,
        namespace: str = "llutil",
        expires: bool = False,
    ) -> None:
        self.store = store
        self.namespace = Namespace(namespace).prefix
        self.expires = expires
        self.on_change = on_change
        self.watches: set[ScopeWatch] = set()
        """Its open watches. Changed within transactions only."""
        self.sessions: set[str] = set()
        """The names of its sessions. Changed within transactions only."""
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

    def open_session(self, ttl: float, *, deadline: float) -> MemorySession:
        """Start a session."""
        self.check(deadline)
        if ttl <= 0:
            raise ConfigError(f"lease_ttl is {ttl:g} s; wanted more than 0")
        with self.store.transaction():
            lease = self.store.new_lease(ttl if self.expires else None, self)
            self.sessions.add(lease)
        return MemorySession(self, ttl, lease)

    def read(self, scope: str, *, deadline: float) -> View:
        """The present state of ``scope``."""
        self.check(deadline)
        check_scope(scope)
        with self.store.transaction() as txn:
            return txn.view(self.namespace, scope)

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> MemoryWatch:
        """Watch ``scope``. Here ``since`` saves no request."""
        self.check(deadline)
        check_scope(scope)
        with self.store.transaction() as txn:
            view = txn.view(self.namespace, scope)
            watch = txn.watch(self.namespace, scope, self)
            self.watches.add(watch)
        known = since if since and since.records == view.records else view
        return MemoryWatch(self, scope, watch, known)

    def end_lease(self, lease: str, *, deadline: float) -> None:
        """End a session or lease by its name."""
        self.check(deadline)
        with self.store.transaction() as txn:
            txn.end_lease(lease)

    def close(self, *, end_sessions: bool = True) -> None:
        """End its watches, and its sessions as if their process had died. Without ``end_sessions``
        these live on until they expire.
        """
        if self._closed or self._pid != os.getpid():
            return
        with self.store.transaction() as txn:
            self._closed = True
            self.store.ledgers.discard(self)
            for watch in self.watches:
                txn.unwatch(watch)
            self.watches.clear()
            for lease in self.sessions if end_sessions else ():
                txn.end_lease(lease)


class MemoryWatch:
    """``llutil.ledgers.Watch`` on a ``MemoryStore``. Made by ``MemoryLedger.watch``.

    ``shown`` is what it has shown last.
    """

    def __init__(self, ledger: MemoryLedger, scope: str, watch: ScopeWatch, shown: View) -> None:
        self.scope = scope
        self.shown = shown
        self._ledger = ledger
        self._watch = watch

    def view(self) -> View:
        """The present state. If its scope has not changed, this costs nothing."""
        self._ledger.check()
        if self._watch.has_changed:
            with self._ledger.store.transaction() as txn:
                self._watch.has_changed = False
                view = txn.view(self._ledger.namespace, self.scope)
            if view.records != self.shown.records:
                self.shown = view
        return self.shown

    def close(self) -> None:
        """Stop watching."""
        with self._ledger.store.transaction() as txn:
            if self._watch in self._ledger.watches:
                self._ledger.watches.remove(self._watch)
                txn.unwatch(self._watch)
                self._watch.has_changed = False


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

    def renew(self) -> None:
        """Begin the session's ttl anew, and that of the leases that it keeps alive.

        :raises SessionLost: the session is over.
        """
        self._ledger.check()
        with self._store.transaction() as txn:
            owner = txn.session(self.lease)
            self._store.renew(self.lease)
            owner.kept = {lease for lease in owner.kept if self._store.renew(lease)}

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record; read the folder's keys and ``reads``."""
        self._ledger.check(deadline)
        namespace = self._ledger.namespace
        key = check_key(check_folder(folder) + name)
        scopes = [check_scope(scope) for scope in reads]
        with self._store.transaction() as txn:
            txn.session(self.lease)
            own = txn.get(namespace, key)
            if own is None:
                (own,) = txn.put(namespace, {key: value}, self.lease)
            if (own.value, own.lease) != (value, self.lease):
                raise LedgerConflict(
                    f"join as {key!r}: session {own.lease} has a record of that name; "
                    "every node needs a name of its own"
                )
            existing = txn.view(namespace, folder)
            # ``replace`` would take four times as long, for each of a thousand nodes' joins.
            members = (
                own if one is own else Record(one.key, b"", one.created, one.lease)
                for one in existing.records
            )
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
            txn.session(self.lease)
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
            txn.session(self.lease)
            guard_exists = txn.has(self._ledger.namespace, guard)
            if guard_exists:
                txn.delete(self._ledger.namespace, scopes)
            return guard_exists

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        """A lease for records that outlive nodes."""
        self._ledger.check(deadline)
        if ttl <= 0:
            raise ConfigError(f"a lease of {ttl:g} s was asked for; wanted more than 0")
        with self._store.transaction() as txn:
            owner = txn.session(self.lease)
            lease = self._store.new_lease(ttl if self._ledger.expires else None)
            owner.kept.add(lease)
            return lease

    def keep_alive(self, lease: str, *, deadline: float) -> None:
        """Renew a lease that another session granted, now and whenever this session is renewed."""
        self._ledger.check(deadline)
        with self._store.transaction() as txn:
            owner = txn.session(self.lease)
            if not self._store.renew(lease):
                raise LeaseGone(f"lease {lease} in memory is over")
            owner.kept.add(lease)

    def cut_off(self, until: float) -> None:
        """Nothing: no network is between."""

    def release(self, *, deadline: float) -> None:
        """End the session at once."""
        self._ledger.check(deadline)
        with self._store.transaction() as txn:
            txn.end_lease(self.lease)
            self._ledger.sessions.discard(self.lease)
