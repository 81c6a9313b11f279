"""What the nodes of a job need from a store, in terms that fit etcd and ZooKeeper alike.

A ledger keeps small immutable records under keys. It promises the present state, never the history:
a watch shows the latest state, and may miss what came and went in between. A session proves that a
node lives. A record that ``Session.join`` puts disappears when its session ends. Other records
belong to a long lease, and disappear when that lease ends.

Three rules hold for every ledger:

* *Keys* are words joined by ``/``. A *scope* is either one key or a folder. A folder is a path that
  ends in ``/``. It means the records directly in it, not those in folders below it.
* *Deadlines* are values of ``time.monotonic()``. A call ends by its deadline. It raises
  ``LedgerUnavailable`` if the store gave no usable answer until then; a write may have been applied
  or not. Before the deadline a call retries by itself. It reads back a write whose answer was lost,
  before it repeats that write.
* *Changes* are announced by one callback without arguments. The ledger gets it when it is made, and
  calls it whenever a watch's view or a session's state may have changed. The call can come from any
  thread, also from inside a call of a ledger. So the callback must return at once, and must not
  take a lock that is held during a call of a ledger. It should only set an event or write to an
  eventfd. The thread that this wakes then asks ``Watch.view()`` and ``Session.state`` for the
  present state.

This module may import the standard library and ``llutil.ledgers.lease_revocation``, and nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from llutil.ledgers.lease_revocation import LeaseRevocation

__all__ = [
    "CreateResult",
    "Created",
    "Exists",
    "GuardGone",
    "Joined",
    "Ledger",
    "MayComeBack",
    "Record",
    "Session",
    "SessionState",
    "View",
    "Watch",
]


@dataclass(frozen=True, slots=True)
class Record:
    """One record. It never changes: a key that was deleted and created again has another
    ``created``.

    ``created`` is a number that grows with time; it orders the records of one folder by arrival.
    ``lease`` is the name of the session or lease that the record belongs to, in the store's own
    notation. It is empty if the record belongs to none. ``Session.keep_alive`` and
    ``Ledger.end_lease`` take it.
    """

    key: str
    value: bytes
    created: int
    lease: str = ""

    @property
    def name(self) -> str:
        """The last word of the key."""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class View:
    """What a scope held at one moment: its records, in order of arrival. ``revision`` is the
    store's revision at that moment.
    """

    records: tuple[Record, ...]
    revision: int

    def get(self, key: str) -> Record | None:
        """The record with that key; None if there was none."""
        return next((record for record in self.records if record.key == key), None)

    def only(self, key: str) -> View:
        """The view of one key at the same moment."""
        return View(tuple(record for record in self.records if record.key == key), self.revision)


@dataclass(frozen=True, slots=True)
class Joined:
    """What ``Session.join`` read, at a moment when the node's own record existed.

    ``members`` holds the folder's records in order of arrival, including the node's own. The values
    of the other records are not read; they are empty. ``views`` holds the views of the scopes in
    ``reads``, by scope.
    """

    record: Record
    members: View
    views: Mapping[str, View] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Created:
    """``Session.create`` wrote the records. They are in the order in which they were given."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """``Session.create`` wrote nothing, because some of its keys existed. These are their records.

    A call that ended with ``LedgerUnavailable`` may have been applied. If a second call then finds
    exactly the caller's own values here, the first call was applied. So a value should say who
    wrote it.
    """

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class GuardGone:
    """``Session.create`` wrote nothing, because the guard (the node's own record) no longer
    exists.
    """


CreateResult = Created | Exists | GuardGone


class SessionState(StrEnum):
    """What a node knows of its session.

    * CONNECTED: the session lives. By the node's own clock, it was renewed less than its ttl ago.
    * SUSPENDED: by that clock, the session may be over. Only the store's next answer can tell.
    * LOST: the store said that the session is over, or the node released it. This state is final.
    """

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


class Session(Protocol):
    """Proof that a node lives. It is renewed in the background, every third of its ttl."""

    @property
    def ttl(self) -> float:
        """Seconds that the session lives after its last renewal."""

    @property
    def lease(self) -> str:
        """The session's name in the store's notation. ``Ledger.end_lease`` takes it."""

    @property
    def renewed_at(self) -> float:
        """``time.monotonic()`` when the last successful renewal was sent."""

    @property
    def state(self) -> SessionState:
        """The state now. The ledger's callback is called when it changes."""

    @property
    def gone(self) -> str:
        """Why the store has gone for good; empty while it may come back. It never becomes empty
        again. The ledger's callback is called when it changes.
        """

    @property
    def store_name(self) -> str:
        """Tells the store that the session was opened in from another one, without the records of
        the first, that is in its place later. Empty if the store keeps its records.
        """

    @property
    def revocation(self) -> LeaseRevocation | None:
        """How another process can end the session after this process was killed. None if the store
        has no way to do that.
        """

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record into ``folder``; read the folder and the scopes in ``reads``.

        On etcd this is one transaction. On other stores, everything that is read is at least as new
        as the node's own record. The record's key begins with ``folder`` and ``name``; a store may
        add a suffix.

        :raises LedgerConflict: another session has a record of that name.
        :raises SessionLost: the store says that the session is over.
        """

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> CreateResult:
        """Create all records, if none of the keys exists and the node's own record ``guard`` still
        exists; else create none.

        The records belong to ``lease``. It lives as long as a session that granted it
        (``grant_lease``) or keeps it alive (``keep_alive``) renews it.

        :raises LeaseGone: the store says that ``lease`` is over.
        """

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        """Delete all records in the scopes, if ``guard`` exists; say whether it did. ``guard`` must
        be in none of the scopes.
        """

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        """Take a second, long lease of ``ttl`` seconds, for records that outlive nodes. The session
        renews it while the session is open.
        """

    def keep_alive(self, lease: str, *, deadline: float) -> None:
        """Renew a lease that another session granted, now and from now on. A second call does
        nothing.

        :raises LeaseGone: the store says that the lease is over.
        """

    def cut_off(self, until: float) -> None:
        """Renew nothing before ``until`` (``time.monotonic()``), as if no network led to the store.
        For faults on purpose, see ``llutil.ledgers.cut_ledger``.
        """

    def release(self, *, deadline: float) -> None:
        """End the session at once. Its member records disappear now; granted leases expire by
        themselves.

        Renewals stop in any case, even if the store cannot be reached.
        """


class MayComeBack:
    """A session on a store that may always come back, however long it has been away."""

    gone: str = ""
    store_name: str = ""
    """Both as in ``Session``."""


class Watch(Protocol):
    """The latest state of one scope. It is kept up to date in the background."""

    def view(self) -> View:
        """The latest known state. It is the same object as before if nothing changed. Never blocks.

        :raises LedgerRefused: the store refuses this watch (permission, credentials).
        """

    def close(self) -> None:
        """Stop watching. ``view`` goes on to return the last view."""


class Ledger(Protocol):
    """A connection to a store, under one namespace. Any thread may use it; a forked child may
    not.
    """

    def open_session(self, ttl: float, *, deadline: float) -> Session:
        """Start a session of ``ttl`` seconds.

        :raises ConfigError: the store does not grant ``ttl`` seconds.
        :raises LedgerGone: the store has gone for good.
        """

    def read(self, scope: str, *, deadline: float) -> View:
        """The present state of ``scope``."""

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> Watch:
        """Watch ``scope``. The first view is ``since``, if it is given; else it is what a read
        finds now.
        """

    def end_lease(self, lease: str, *, deadline: float) -> None:
        """End a session or a lease of another process, by its name. It is no error if it is over
        already.
        """

    def close(self) -> None:
        """End every thread, watch and connection, without telling the store.

        A session that was not released expires by itself. A second call does nothing.
        """
