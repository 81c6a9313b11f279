"""A ledger in virtual time: leases that expire late, guarded creates, and watches that lag behind
and reorder.

It promises what the rendezvous asks of a ledger and not a bit more: a watch shows the present
state, later, coalesced, and independently of every other watch; it never goes backwards, and its
first look is no older than the request for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llutil.rendezvous.protocol.records import (
    Assignment,
    Marker,
    Member,
    Record,
    Report,
    ReportKind,
    Stage,
    Verdict,
)
from llutil.rendezvous.protocol.run_history import RunHistory

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

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

    topic: Any
    deliver: Callable[[Any], None]
    host: Host
    seen: Any = None
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
    entries: dict[tuple[str, Any], Record] = field(default_factory=dict)
    reports: dict[Stage, dict[tuple[str, str], Report]] = field(default_factory=dict)
    watches: dict[Any, list[Watch]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    _log: RunHistory | None = _EMPTY_LOG

    # Leases

    def grant(self, host: Host) -> Lease:
        """A new lease."""
        self.tally.leases += 1
        lease = Lease(host, self.world.now + self.world.rules.lease_ttl)
        self.world.at(lease.until + self.world.lag(), self._expire, lease)
        return lease

    def _expire(self, lease: Lease) -> None:
        if not lease.alive:
            return
        if lease.until > self.world.now:
            self.world.at(lease.until + self.world.lag(), self._expire, lease)
        else:
            self.revoke(lease)

    def revoke(self, lease: Lease) -> None:
        """End a lease; its member record goes with it."""
        lease.alive = False
        if lease.node is not None and lease.node in self.members:
            del self.members[lease.node]
            self.world.properties.lost(lease.node)
            self._changed("members")
            self._changed(("member", lease.node))

    # Writes

    def join(self, lease: Lease, member: Member) -> tuple[str, ...] | None:
        """Put a member record; names of the older ones, or None if the lease is over."""
        if not lease.alive:
            return None
        self.tally.joins += 1
        if member.node not in self.members:
            lease.node = member.node
            self.members[member.node] = Entry(member, lease)
            self._changed("members")
        older = []
        for node in self.members:
            if node == member.node:
                break
            older.append(node)
        return tuple(older)

    def create(self, guard: str, records: tuple[Record, ...], host: Host) -> Record | bool | None:
        """True if written, the record that was there already, or None if ``guard`` is gone."""
        for record in records:
            if (found := self.find(record)) is not None:
                return found
        if guard not in self.members:
            return None
        self.tally.creates += 1
        self.world.properties.creating(records, host)
        for record in records:
            if isinstance(record, Report):
                self.reports.setdefault(record.stage, {})[_slot(record), record.node] = record
                self._changed(("reports", record.stage))
            else:
                self.entries[_key(record)] = record
                self._log = None
        if self._log is None:
            self._changed("log")
        return True

    def sweep(self, before: Stage) -> None:
        """Delete rounds before a stage, and all markers but the newest."""
        self.tally.deletes += 1
        markers = sorted(key for key in self.entries if key[0] == "marker")
        for key in list(self.entries):
            stale = key in markers[:-1] if key[0] == "marker" else key[1] < before
            if stale:
                del self.entries[key]
        for stage in [stage for stage in self.reports if stage < before]:
            del self.reports[stage]
        self._log = None
        self._changed("log")

    # Reads

    def find(self, record: Record) -> Record | None:
        """What the key of ``record`` holds."""
        if isinstance(record, Report):
            return self.reports.get(record.stage, {}).get((_slot(record), record.node))
        return self.entries.get(_key(record))

    def log(self) -> RunHistory:
        """The newest records, as a reader of the whole folder finds them."""
        if self._log is None:
            self._log = _EMPTY_LOG.with_records(self.entries.values())
        return self._log

    def look(self, topic: Any) -> Any:
        """What a scope holds now."""
        match topic:
            case "log":
                return self.log()
            case "members":
                return tuple(entry.member for entry in self.members.values())
            case ("reports", stage):
                return tuple(self.reports.get(stage, {}).values())
            case ("member", node):
                return node in self.members
            case _:
                raise AssertionError(topic)

    # Watches

    def watch(self, watch: Watch) -> None:
        """Begin a watch; its first look is taken later than now."""
        watch.pace = SLOWEST * self.world.random() if self.world.random() < 0.4 else 1.0
        self.watches.setdefault(watch.topic, []).append(watch)
        self._stir(watch)

    def unwatch(self, watch: Watch) -> None:
        """End a watch; a look that is on its way is dropped."""
        watch.open = False
        self.watches[watch.topic].remove(watch)

    def _changed(self, topic: Any) -> None:
        for watch in self.watches.get(topic, ()):
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
        self.world.at(when, self._arrive, watch, self.look(watch.topic))

    def _arrive(self, watch: Watch, seen: Any) -> None:
        if not watch.open:
            return
        if watch.host.cut:  # the stream is broken; it goes on where it was, with the present state
            watch.host.on_reconnect(lambda: self._stir(watch))
            return
        watch.flying = False
        if watch.dirty:
            self._stir(watch)
        if seen == watch.seen:
            return
        watch.seen = seen
        if (
            watch.host.paused
        ):  # only the newest look waits for the thaw, as old as it may be by then
            watch.host.unseen[watch] = seen
        else:
            watch.deliver(seen)


def _key(record: Assignment | Verdict | Marker | Member) -> tuple[str, Any]:
    if isinstance(record, Marker):
        return ("marker", record.generation)
    assert isinstance(record, Assignment | Verdict), record
    return (type(record).__name__.lower(), record.stage)


def _slot(report: Report) -> str:
    return "end" if report.say in (ReportKind.SUCCEEDED, ReportKind.FAILED) else report.say.value
