"""All that was ever written into a store, read back after the fact, and what must hold for any
history of runs.

etcd keeps every version of every key until it is told to forget (compaction), so nothing has to be
watched while a test runs: one watch from the first revision on tells the whole story. ZooKeeper
keeps a log of its transactions.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kazoo.exceptions import NoAuthError, NoNodeError

from llutil.backends.endpoints import Endpoint
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.rendezvous.protocol.record_codec import decode
from llutil.rendezvous.protocol.records import Assignment, Marker, Member, Report, Verdict
from tests.support.etcd_servers import EtcdServer
from tests.support.served_servers import ServedServer
from tests.support.stores import Server
from tests.support.zookeeper_servers import ZooKeeperServer, client
from tests.support.zookeeper_transactions import transactions

__all__ = ["Change", "History", "ServerPart", "left_in", "read_history"]

_DEADLINE = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class ServerPart:
    """The part of a shared ``server`` that is one test's: what lies in that namespace."""

    server: Server
    namespace: str

    @property
    def endpoint(self) -> Endpoint:
        """Where clients find it."""
        return self.server.endpoint


@dataclass(frozen=True, slots=True)
class Change:
    """One event: ``value`` None means that the key was deleted."""

    key: str
    value: bytes | None
    revision: int
    version: int
    lease: int


class History:
    """The changes of a store, in order."""

    def __init__(self, changes: list[Change]) -> None:
        self.changes = changes
        self.alive: dict[str, tuple[int, int]] = {}
        """From and until which revision a node's member record was there; until then 0 if it still
        is.
        """
        for change in changes:
            place, _, node = change.key.partition("/members/")
            if not node or not place.startswith("/"):
                continue
            if change.value is not None:
                self.alive[node] = (change.revision, 0)
            else:
                self.alive[node] = (self.alive[node][0], change.revision)

    def records(self, *kinds: type) -> Iterator[tuple[Change, Any]]:
        """The records of these kinds that were written, in order."""
        for change in self.changes:
            if change.value is not None and "/-/run." in change.key:
                record = decode(change.key, change.value)
                if isinstance(record, kinds):
                    yield change, record

    @property
    def assignments(self) -> list[Assignment]:
        """All rounds ever sealed, in order."""
        return [record for _, record in self.records(Assignment)]

    @property
    def verdicts(self) -> list[Verdict]:
        """All verdicts, in order."""
        return [record for _, record in self.records(Verdict)]

    @property
    def markers(self) -> list[Marker]:
        """All markers, in order."""
        return [record for _, record in self.records(Marker)]

    @property
    def names(self) -> dict[str, list[str]]:
        """The identities that each node had, by its name."""
        names: dict[str, list[str]] = {}
        for _, member in self.records(Member):
            names.setdefault(member.name, []).append(member.node)
        return names

    def was_alive(self, node: str, revision: int) -> bool:
        """Whether that identity's record was there at that revision."""
        first, last = self.alive.get(node, (revision + 1, 0))
        return first <= revision and (not last or revision < last)

    def check(self) -> None:
        """What must always hold; see the assertions."""
        for change in self.changes:
            if change.value is not None and "/-/run." in change.key:
                assert change.lease, f"{change.key} was written without a lease"
                assert change.version == 1, f"{change.key} was overwritten"
        sealed: dict[tuple[str, int, int], Assignment] = {}
        for change, record in self.records(Assignment, Verdict, Marker, Report):
            writer = record.node if isinstance(record, Report) else record.by
            assert self.was_alive(writer, change.revision), f"{writer} wrote {change.key} when gone"
            if isinstance(record, Assignment):
                run = change.key.partition("/log/")[0]
                place = (run, *record.stage)
                assert place not in sealed, f"{record.stage} of {run} was sealed twice"
                assert all(place > other for other in sealed if other[0] == run)
                sealed[place] = record
                assert all(self.was_alive(node, change.revision) for node in [record.by])


def read_history(server: Server | ServerPart) -> History:
    """The history of ``server``, or of a part of one, up to now."""
    if isinstance(server, ServerPart):
        folder = f"/{server.namespace}/"
        changes = read_history(server.server).changes
        return History([change for change in changes if change.key.startswith(folder)])
    if isinstance(server, ZooKeeperServer):
        return History(list(_changes(server)))
    if isinstance(server, ServedServer):
        return History([Change(*one[:3], 1, one[3]) for one in server.changes()])
    return _history_of(server)


def _changes(server: ZooKeeperServer) -> Iterator[Change]:
    """A ZooKeeper's changes, as if its keys were an etcd's."""
    for one in transactions(server):
        for path in one.gone:
            if key := _key(path):
                yield Change(key, None, one.zxid, 1, 1)
        for path, data in one.made.items():
            if key := _key(path):
                leased = path in one.owners
                lease, _, value = (b"session", b"", data) if leased else data.partition(b"\n")
                yield Change(key, value, one.zxid, 1, len(lease))


def _key(path: str) -> str:
    """The key of a record's node; empty if it is another."""
    folder, _, name = path.rpartition("/")
    if "/-/" not in path or name[0] not in "=@":
        return ""
    return f"{folder}/{name[1:] if name[0] == '=' else name[1:].rsplit(':', 2)[0]}"


def _history_of(server: EtcdServer) -> History:
    with server.channel() as channel:
        now = etcdrpc.KVStub(channel).Range(etcdrpc.RangeRequest(key=b"x"), timeout=_DEADLINE)
        last = now.header.revision
        if last == 1:
            return History([])
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        create = etcdrpc.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=1)
        requests.put(etcdrpc.WatchRequest(create_request=create))
        call = etcdrpc.WatchStub(channel).Watch(iter(requests.get, None), timeout=_DEADLINE)
        changes: list[Change] = []
        for reply in call:
            assert not reply.canceled, "this etcd has forgotten its past"
            changes += [
                Change(
                    event.kv.key.decode(errors="backslashreplace"),
                    None if event.type == event.DELETE else event.kv.value,
                    event.kv.mod_revision,
                    event.kv.version,
                    event.kv.lease,
                )
                for event in reply.events
            ]
            if changes and changes[-1].revision >= last:
                break
        requests.put(None)
        call.cancel()
        return History(changes)


def left_in(server: Server | ServerPart) -> list[tuple[str, bytes, float]]:
    """What is in ``server``, or in a part of one, now: keys, values, and the seconds that they have
    at most (0: as long as its session, or for ever).

    After these etcd and a served ledger remove it by themselves; in ZooKeeper the next job does.
    """
    if isinstance(server, ServerPart):
        folder, server = f"/{server.namespace}/", server.server
    else:
        folder = ""
    if isinstance(server, ZooKeeperServer):
        return _left_in_zookeeper(server, folder)
    if isinstance(server, ServedServer):
        return [one for one in server.left() if one[0].startswith(folder)]
    return _left_in_etcd(server, folder)


def _left_in_etcd(server: EtcdServer, folder: str) -> list[tuple[str, bytes, float]]:
    with server.channel() as channel:
        everything = etcdrpc.RangeRequest(key=b"\0", range_end=b"\0")
        found = etcdrpc.KVStub(channel).Range(everything, timeout=_DEADLINE).kvs
        lease = etcdrpc.LeaseStub(channel)
        ask = etcdrpc.LeaseTimeToLiveRequest
        return [
            (
                kv.key.decode(errors="backslashreplace"),
                kv.value,
                lease.LeaseTimeToLive(ask(ID=kv.lease), timeout=_DEADLINE).TTL if kv.lease else 0,
            )
            for kv in found
            if kv.key.startswith(folder.encode())
        ]


def _left_in_zookeeper(server: ZooKeeperServer, folder: str) -> list[tuple[str, bytes, float]]:
    with client(server) as one:
        one.create("/now", ephemeral=True)
        now = one.exists("/now").ctime
        paths = _all_below(one, "/")
        ends = {}
        for path in paths:
            parent, _, name = path.rpartition("/")
            if parent.endswith("/-/-") and (found := _there(one, path)):
                data, stat = found
                ends[name] = json.loads(data)["ttl"] - (now - stat.mtime) / 1000
        left = []
        for path in paths:
            key = _key(path)
            if not key or not key.startswith(folder) or not (found := _there(one, path)):
                continue
            data, stat = found
            lease, _, value = data.partition(b"\n")
            if stat.ephemeralOwner:
                left.append((key, data, 0.0))
            else:
                left.append((key, value, ends[lease.decode()]))
        return left


def _there(one: Any, path: str) -> Any:
    """A znode's data and facts; None if it has gone since it was listed, or is another test's, who
    has closed it to us.
    """
    try:
        return one.get(path)
    except (NoNodeError, NoAuthError):
        return None


def _all_below(one: Any, path: str) -> list[str]:
    try:
        children = [f"{path.rstrip('/')}/{name}" for name in one.get_children(path)]
    except (NoNodeError, NoAuthError):
        return []
    return [*children, *(deeper for child in children for deeper in _all_below(one, child))]
