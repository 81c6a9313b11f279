"""A ledger in virtual time: leases that expire late, guarded creates, and watches that lag behind
and reorder.

It promises what the rendezvous asks of a ledger and not a bit more: a watch shows the present
state, later, coalesced, and independently of every other watch; it never goes backwards, and its
first look is no older than the request for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llutil.ledgers.protocol import Created, CreateResult, Exists, GuardGone, View
from llutil.ledgers.protocol import Record as Stored
from llutil.rendezvous.protocol.gate_records import GateAnswer, Wish
from llutil.rendezvous.protocol.record_codec import encode
from llutil.rendezvous.protocol.record_keys import RecordKeys
from llutil.rendezvous.protocol.records import Member, Record, Report
from llutil.rendezvous.protocol.run_history import RunHistory

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

KEYS = RecordKeys("run")
_EMPTY_LOG = RunHistory()
SLOWEST = 5.0
"""How much slower than a message each half of a watch's look can be."""


@dataclass(slots=True, eq=False)
class Lease:
    """``until``: when it expires, if it is not renewed; the store notices some time later."""

    host: Host
    until: float
    alive: bool = True
    node: str | None = None


@dataclass(slots=True)
class Entry:
    """A member record, in the order of arrival (dicts keep it)."""

    member: Member
    lease: Lease


@dataclass(slots=True, eq=False)
class Watch:
    """One scope, seen by one node. At most one look is on its way. ``pace``: how much slower than
    messages it is.
    """

    scope: str
    deliver: Callable[[View], None]
    host: Host
    seen: View | None = None
    pace: float = 1.0
    open: bool = True
    flying: bool = False
    dirty: bool = False


@dataclass(slots=True)
class Tally:
    """Requests that changed the store."""

    leases: int = 0
    joins: int = 0
    creates: int = 0
    deletes: int = 0


@dataclass(slots=True)
class Store:
    """The one store of a world."""

    world: World
    members: dict[str, Entry] = field(default_factory=dict)
    """The nodes' own member records, by node."""
    folders: dict[str, dict[str, Stored]] = field(default_factory=dict)
    """All records, by folder and key, in the order of arrival."""
    meaning: dict[bytes, Record] = field(default_factory=dict)
    """What each value means that a node has written."""
    watches: dict[str, list[Watch]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    revision: int = 0
    gone: bool = False
    """It has gone for good: nothing changes any more, and nobody hears of anything."""
    _log: RunHistory | None = _EMPTY_LOG

    # Leases

    def grant(self, host: Host) -> Lease:
        """A new lease."""
        self.tally.leases += 1
        lease = Lease(host, self.world.now + self.world.rules.lease_ttl)
        self.world.at(lease.until + self.world.lag(), self._expire, lease)
        return lease

    def _expire(self, lease: Lease) -> None:
        if self.gone or not lease.alive:
            return
        if lease.until > self.world.now:
            self.world.at(lease.until + self.world.lag(), self._expire, lease)
        else:
            self.revoke(lease)

    def revoke(self, lease: Lease) -> None:
        """End a lease; its member record goes with it."""
        if self.gone:
            return
        lease.alive = False
        if lease.node is not None and lease.node in self.members:
            del self.members[lease.node]
            key = KEYS.members + KEYS.name(lease.node)
            del self.folders[KEYS.members][key]
            self.world.properties.lost(lease.node)
            self._changed(KEYS.members)
            self._changed(key)

    # Writes

    def put(self, key: str, value: bytes, lease: str) -> Stored:
        """Write a record; whoever watches it has to be told by the caller."""
        self.revision += 1
        stored = Stored(key, value, self.revision, lease)
        folder = key.rpartition("/")[0] + "/"
        self.folders.setdefault(folder, {})[key] = stored
        return stored

    def join(self, lease: Lease, member: Member) -> tuple[Stored, ...] | None:
        """Put a member record; the older records beside it, or None if the lease is over."""
        if not lease.alive:
            return None
        self.tally.joins += 1
        key = KEYS.key(member)
        if member.node not in self.members:
            lease.node = member.node
            self.members[member.node] = Entry(member, lease)
            value = encode(member)
            self.meaning[value] = member
            self.put(key, value, member.node)
            self._changed(KEYS.members)
        older = []
        for stored in self.folders[KEYS.members].values():
            if stored.key == key:
                break
            older.append(stored)
        return tuple(older)

    def create(
        self, guard: str, values: Mapping[str, bytes], records: tuple[Record, ...], host: Host
    ) -> CreateResult:
        """As ``Session.create`` does; ``values`` are ``records`` in the store's words."""
        existing = [
            stored
            for key in values
            if (stored := self.folders.get(key.rpartition("/")[0] + "/", {}).get(key))
        ]
        if existing:
            return Exists(tuple(existing))
        if guard not in self.members:
            return GuardGone()
        self.tally.creates += 1
        self.world.properties.creating(records, host)
        written = []
        for (key, value), record in zip(values.items(), records, strict=True):
            self.meaning[value] = record
            written.append(self.put(key, value, f"of generation {record_generation(record)}"))
            if isinstance(record, Report | Wish):
                self._changed(KEYS.reports(record.stage))
            elif isinstance(record, GateAnswer):
                self._changed(KEYS.answers(record.stage, record.number))
            else:
                self._log = None
        if self._log is None:
            self._changed(KEYS.log)
        return Created(tuple(written))

    def stray(self, key: str, value: bytes, lease: str) -> None:
        """Somebody else writes something there; nothing that a node has written is changed."""
        folder = key.rpartition("/")[0] + "/"
        if self.gone or key in self.folders.get(folder, {}):
            return
        self.put(key, value, lease)
        self._changed(folder)
        self._changed(key)

    def delete(self, scopes: Iterable[str]) -> None:
        """Delete what is in these folders and under these keys."""
        if self.gone:
            return
        self.tally.deletes += 1
        for scope in scopes:
            if scope.endswith("/"):
                self.folders.pop(scope, None)
            else:
                self.folders[KEYS.log].pop(scope, None)
        self._log = None
        self._changed(KEYS.log)

    # Reads

    def log(self) -> RunHistory:
        """The newest records of the run, as a reader of the whole folder finds them."""
        if self._log is None:
            values = (stored.value for stored in self.folders.get(KEYS.log, {}).values())
            own = (self.meaning[value] for value in values if value in self.meaning)
            self._log = _EMPTY_LOG.with_records(own)
        return self._log

    def look(self, scope: str) -> View:
        """What a scope holds now."""
        if scope == KEYS.log:
            self.log()
        if scope.endswith("/"):
            return View(tuple(self.folders.get(scope, {}).values()), self.revision)
        stored = self.folders.get(scope.rpartition("/")[0] + "/", {}).get(scope)
        return View((stored,) if stored else (), self.revision)

    # Watches

    def watch(self, watch: Watch) -> None:
        """Begin a watch; its first look is taken later than now."""
        watch.pace = SLOWEST * self.world.random() if self.world.random() < 0.4 else 1.0
        self.watches.setdefault(watch.scope, []).append(watch)
        self._stir(watch)

    def unwatch(self, watch: Watch) -> None:
        """End a watch; a look that is on its way is dropped."""
        watch.open = False
        self.watches[watch.scope].remove(watch)

    def _changed(self, scope: str) -> None:
        for watch in self.watches.get(scope, ()):
            if watch.flying:
                watch.dirty = True
            else:
                self._stir(watch)

    def _stir(self, watch: Watch) -> None:
        watch.flying = True
        watch.dirty = False
        self.world.at(self.world.now + watch.pace * self.world.delayed(), self._sample, watch)

    def _sample(self, watch: Watch) -> None:
        watch.dirty = False
        when = self.world.now + watch.pace * self.world.delayed()
        self.world.at(when, self._arrive, watch, self.look(watch.scope))

    def _arrive(self, watch: Watch, seen: View) -> None:
        if not watch.open:
            return
        if watch.host.cut:  # the stream is broken; it goes on where it was, with the present state
            watch.host.on_reconnect(lambda: self._stir(watch))
            return
        watch.flying = False
        if watch.dirty:
            self._stir(watch)
        if watch.seen is not None and seen.records == watch.seen.records:
            return
        watch.seen = seen
        if (
            watch.host.paused
        ):  # only the newest look waits for the thaw, as old as it may be by then
            watch.host.unseen[watch] = seen
        else:
            watch.deliver(seen)


def record_generation(record: Record) -> int:
    """Which generation a record is about."""
    return 0 if isinstance(record, Member) else record.generation
