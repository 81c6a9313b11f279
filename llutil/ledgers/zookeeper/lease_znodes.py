"""Granted leases on ZooKeeper: nodes whose time of change says until when they live, and the
sweeping of the dead.

ZooKeeper's own nodes with a time to live need a server that was told to have them, and a client
that can make them; kazoo cannot. So a lease is a node like any other: renewing it is writing it
again, and by the server's own clock (its time of change, against the one of a lease that is granted
now) a later job finds that it is over, and removes it with its records and the folders that these
leave empty. The lease's node names the top folders of its records.

A lease that is to be ended is renamed first, in one transaction with a check of its version: from
then on nobody can adopt it or write on it, and whoever sweeps next finishes what was begun. Of ours
this module imports ``llutil.ledgers`` and what lies in this folder.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
from dataclasses import dataclass, replace
from typing import Any

from kazoo import exceptions as zk

from llutil.ledgers.errors import LedgerConflict
from llutil.ledgers.zookeeper.kazoo_session import KazooSession
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths
from llutil.ledgers.zookeeper.znode_reader import ZnodeReader

__all__ = ["LeaseZnode", "LeaseZnodes", "end", "grant", "look", "renew", "sweep"]

_log = logging.getLogger(__name__)

_LOOKS = 16  # leases, and folders, that one sweep looks at: at random, so that all have their turn
_OVER = "over-"
_YOUNG = 86_400_000  # ms during which an empty folder may be that of a job that begins, or waits


@dataclass(frozen=True, slots=True)
class LeaseZnode:
    """A lease as it was at ``version`` of its node, which was written at ``written`` (the server's
    ms).
    """

    name: str
    ttl: float
    tops: tuple[str, ...]
    version: int
    written: int

    @property
    def data(self) -> bytes:
        """What its node holds."""
        return json.dumps({"version": 1, "ttl": self.ttl, "tops": self.tops}).encode()

    def over(self, now: int) -> bool:
        """Whether it is over at that time of the server (ms)."""
        return now > self.written + self.ttl * 1000


@dataclass(frozen=True, slots=True)
class LeaseZnodes:
    """How to reach the leases: ``line``, and where they lie."""

    line: KazooSession
    places: ZnodePaths

    def reader(self, deadline: float) -> ZnodeReader:
        """What reads until then."""
        return ZnodeReader(self.line, self.places, deadline)


def _parse(name: str, data: bytes, stat: Any) -> LeaseZnode:
    try:
        value = json.loads(data)
        tops = tuple(str(top) for top in value["tops"])
        return LeaseZnode(name, float(value["ttl"]), tops, int(stat.version), int(stat.mtime))
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerConflict(
            f"the node of the lease {name!r} holds what no node of ours wrote; use another namespace"
        ) from error


def look(reader: ZnodeReader, places: ZnodePaths, name: str) -> LeaseZnode | None:
    """The lease of that name; None if it is over. Within ``KazooSession.trying``."""
    path = places.lease(name)
    try:
        data, stat = reader.ask(lambda client: client.get_async(path))
    except zk.NoNodeError:
        return None
    return _parse(name, data, stat)


def grant(granting: LeaseZnodes, ttl: float, *, deadline: float) -> LeaseZnode:
    """A new lease. We choose its name, so that a second attempt finds what a doubtful first one
    granted.
    """
    lease = LeaseZnode(f"lease-{secrets.token_hex(8)}", ttl, (), 0, 0)
    path = granting.places.lease(lease.name)

    def act(_: bool) -> LeaseZnode:
        reader = granting.reader(deadline)
        while True:
            try:
                _, stat = reader.ask(
                    lambda client: client.create_async(path, lease.data, include_data=True)
                )
            except zk.NoNodeError:
                reader.make_folder(granting.places.leases)
            except zk.NodeExistsError:
                found = look(reader, granting.places, lease.name)
                if found is not None:
                    return found
            else:
                return replace(lease, written=int(stat.mtime))

    return granting.line.trying(f"grant a lease of {ttl:g} s", act, deadline=deadline)


def renew(granting: LeaseZnodes, name: str, *, deadline: float) -> LeaseZnode | None:
    """Renew a lease; None if it is over."""
    path = granting.places.lease(name)

    def act(_: bool) -> LeaseZnode | None:
        reader = granting.reader(deadline)
        while (lease := look(reader, granting.places, name)) is not None:
            data, version = lease.data, lease.version
            try:
                stat = reader.ask(lambda client: client.set_async(path, data, version))  # noqa: B023 - called at once
            except (zk.BadVersionError, zk.NoNodeError):
                continue
            return replace(lease, version=int(stat.version), written=int(stat.mtime))
        return None

    return granting.line.trying(f"renew {name}", act, deadline=deadline)


def end(granting: LeaseZnodes, name: str, *, deadline: float) -> None:
    """End a lease, with all records that go with it. One that is over already is fine."""

    def act(_: bool) -> None:
        reader = granting.reader(deadline)
        while (lease := look(reader, granting.places, name)) is not None:
            if _bury(reader, granting.places, lease):
                break
        _clear(reader, granting.places, name)

    granting.line.trying(f"end {name}", act, deadline=deadline)


def _bury(reader: ZnodeReader, places: ZnodePaths, lease: LeaseZnode) -> bool:
    """Rename the lease's node, unless somebody has written it since."""

    def send(client: Any) -> Any:
        transaction = client.transaction()
        transaction.delete(places.lease(lease.name), lease.version)
        transaction.create(places.lease(_OVER + lease.name), lease.data)
        return transaction.commit_async()

    return not any(isinstance(one, Exception) for one in reader.ask(send))


def _clear(reader: ZnodeReader, places: ZnodePaths, name: str) -> None:
    """Remove the records of a lease that was renamed, the folders that are empty then, and its
    node.
    """
    lease = look(reader, places, _OVER + name)
    if lease is None:
        return
    for top in lease.tops:
        nodes, folders = reader.below(top)
        for node in nodes:
            for record in () if node.session else reader.records([node]) or ():
                if record.lease == name:
                    _delete(reader, node.path)
        reader.remove_folders([path for path in folders if path != places.folder("")])
    _delete(reader, places.lease(_OVER + name))


def _delete(reader: ZnodeReader, path: str) -> None:
    try:
        reader.ask(lambda client: client.delete_async(path))
    except zk.NoNodeError:
        return


def sweep(granting: LeaseZnodes, now: int, *, deadline: float) -> None:
    """Of some leases, end those that are over at ``now`` (the server's ms); of some folders, remove
    the empty ones.
    """

    def act(_: bool) -> None:
        reader = granting.reader(deadline)
        names, _ = reader.ask(
            lambda client: client.get_children_async(granting.places.leases, include_data=True)
        )
        for name in _some(names):
            lease = look(reader, granting.places, name)
            if lease is None:
                continue
            if name.startswith(_OVER):
                _clear(reader, granting.places, name.removeprefix(_OVER))
            elif lease.over(now) and _bury(reader, granting.places, lease):
                _log.info("%s was over, and is removed with its records", name)
                _clear(reader, granting.places, name)
        _sweep_folders(reader, granting.places, now)

    granting.line.trying("sweep what is over", act, deadline=deadline)


def _some(names: list[str]) -> list[str]:
    return random.sample(names, min(_LOOKS, len(names)))


def _sweep_folders(reader: ZnodeReader, places: ZnodePaths, now: int) -> None:
    tops = [places.subfolder("", name) for name in reader.listing("").names]
    for top in _some([top for top in tops if top is not None]):
        if reader.listing(top).made + _YOUNG > now:
            continue
        nodes, folders = reader.below(top)
        if not nodes:
            reader.remove_folders(folders)
