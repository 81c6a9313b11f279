"""What the nodes of a job need from a store, in words that fit etcd and ZooKeeper alike.

A ledger keeps small immutable records under keys. It promises its present state, never its history:
who watches is told the latest state, and may miss what came and went in between. Nodes prove that
they live by a session; a record put by ``Session.join`` goes when its session ends, other records
go with a long lease.

Three rules hold for every ledger:

* *Keys* are words joined by ``/``. A *scope* is either one key, or a folder: a path that ends in
  ``/`` and means the records directly in it, not those in folders below.
* *Deadlines* are values of ``time.monotonic()``. A call ends by its deadline, with
  ``LedgerUnavailable`` if the store gave no usable answer; a write may then have been applied or
  not. Short of the deadline a call tries again by itself, and reads an ambiguous write back before
  it repeats it.
* *Changes* are announced by one callback without arguments, given to the ledger when it is made. It
  is called from any thread, also from inside a call of a ledger, whenever a watch's view or a
  session's state may differ from before. It must return at once and take no lock that is held
  during a call of a ledger: setting an event, or writing to an eventfd, is all that it should do.
  Its owner, woken, asks ``Watch.view()`` and ``Session.state`` for the present state.

This module may import nothing but the standard library and ``llutil.ledgers.lease_revocation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from llutil.ledgers.lease_revocation import LeaseRevocation

__all__ = [
    "Created",
    "Exists",
    "Gone",
    "Joined",
    "Ledger",
    "Outcome",
    "Record",
    "Session",
    "SessionState",
    "View",
    "Watch",
]


@dataclass(frozen=True, slots=True)
class Record:
    """One record. It never changes; a key that was deleted and created again has another
    ``created``.

    ``created`` orders the records of one folder by arrival. ``lease`` names what the record goes
    with, in the store's own notation (empty if nothing); it is for ``Session.adopt`` and
    ``Ledger.end``.
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
    """What a scope held at one moment: its records, in order of arrival, at ``revision`` of the
    store.
    """

    records: tuple[Record, ...]
    revision: int

    def get(self, key: str) -> Record | None:
        """The record with that key, if there was one."""
        return next((record for record in self.records if record.key == key), None)

    def only(self, key: str) -> View:
        """The same moment, seen through the scope of one key."""
        return View(tuple(record for record in self.records if record.key == key), self.revision)


@dataclass(frozen=True, slots=True)
class Joined:
    """What ``Session.join`` learned, at a moment when the node's own record was there.

    ``members`` holds the folder's records in order of arrival, the own one included. The values of
    the others are not read, and empty. ``views`` holds the scopes that were asked for beside it.
    """

    record: Record
    members: View
    views: Mapping[str, View] = field(default_factory=dict)

    @property
    def predecessor(self) -> Record | None:
        """The youngest record that is older than the own one (its value is not read), or None."""
        older = [record for record in self.members.records if record.created < self.record.created]
        return older[-1] if older else None


@dataclass(frozen=True, slots=True)
class Created:
    """``Session.create`` wrote the records, in the order in which they were given."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """``Session.create`` wrote nothing, because these of its keys existed; here is what they hold.

    If a call ended with ``LedgerUnavailable`` and a second one finds exactly the caller's own
    values here, then the first had been applied: so values should say who wrote them.
    """

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """``Session.create`` wrote nothing, because the guard, the node's own record, is no longer
    there.
    """


Outcome = Created | Exists | Gone


class SessionState(StrEnum):
    """What a node knows of its session.

    CONNECTED: it was renewed less than its ttl ago, by the node's own clock, so it lives.
    SUSPENDED: that clock says that it may be over; nobody knows, until the store answers again.
    LOST: the store said that it is over, or the node released it. It stays so.
    """

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


class Session(Protocol):
    """Proof that a node lives, renewed in the background every third of its ttl."""

    @property
    def ttl(self) -> float:
        """Seconds that the session outlives its last renewal."""

    @property
    def lease(self) -> str:
        """The session's name in the store's notation: what ``Ledger.end`` takes."""

    @property
    def renewed(self) -> float:
        """``time.monotonic()`` when the last renewal that succeeded was sent."""

    @property
    def state(self) -> SessionState:
        """The state now. The callback is called when it changes."""

    @property
    def will(self) -> LeaseRevocation | None:
        """How another process ends the session when this one was killed; None if the store has no
        way for that.
        """

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record into ``folder``, and read it and the scopes ``reads``.

        In one transaction where the store can (etcd), else such that everything read is at least as
        new as the own record. The record's key begins with ``folder`` and ``name``; a store may add
        a suffix.

        :raises LedgerConflict: another session has a record of that name.
        :raises SessionLost: the store says that the session is over.
        """

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> Outcome:
        """Create records, all or none: if no key exists, and the own record ``guard`` is still
        there.

        They go with ``lease``, which ``grant`` or ``adopt`` of some session keeps alive.

        :raises LeaseGone: the store says that ``lease`` is over.
        """

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        """Delete what is in the scopes now, if ``guard``, which is in none of them, is there; say
        whether it was.
        """

    def leave(self, record: Record, *, deadline: float) -> None:
        """Delete the own record, if it is still there; the session lives on."""

    def grant(self, ttl: float, *, deadline: float) -> str:
        """A second, long lease, for records that outlive nodes. This session renews it while it is
        open.
        """

    def adopt(self, lease: str, *, deadline: float) -> None:
        """Renew a lease that another session granted, now and from now on. Adopting it again does
        nothing.

        :raises LeaseGone: the store says that it is over.
        """

    def release(self, *, deadline: float) -> None:
        """End the session at once: its member records go now, granted leases run out by themselves.

        Renewing stops in any case, also if the store cannot be reached.
        """


class Watch(Protocol):
    """The latest state of one scope, kept up to date in the background."""

    def view(self) -> View:
        """The latest state known; the same object as before if nothing changed. Never blocks.

        :raises LedgerRefused: the store refuses this watch (permission, credentials).
        """

    def close(self) -> None:
        """Stop watching. ``view`` keeps what it had."""


class Ledger(Protocol):
    """A connection to a store, under one namespace. Any thread may call it; a forked child may
    not.
    """

    def open_session(self, ttl: float, *, deadline: float) -> Session:
        """Start a session.

        :raises ConfigError: the store does not grant ``ttl`` seconds.
        """

    def read(self, scope: str, *, deadline: float) -> View:
        """The present state of ``scope``."""

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> Watch:
        """Watch ``scope``, from ``since`` on if given, else from what a read finds now; the first
        view is that.
        """

    def end(self, lease: str, *, deadline: float) -> None:
        """End a session or lease by its name, for a process that is gone. One that is over already
        is fine.
        """

    def close(self) -> None:
        """End every thread, watch and connection, without a word to the store.

        A session that was not released runs out by itself. Closing again does nothing.
        """
