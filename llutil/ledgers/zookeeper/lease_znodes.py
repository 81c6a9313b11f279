"""Granted leases on ZooKeeper: each is a znode whose mtime says until when the lease lives.
``sweep`` removes leases that are over.

ZooKeeper's own TTL znodes need a server that is configured for them, and kazoo cannot create them.
So a lease is an ordinary znode. A renewal writes it again, which changes its mtime. A later job
compares that mtime with the mtime of a lease that it has just granted; both are times of the
server's clock. If the lease is over, the job removes it with its records, and with the folders that
are empty then. The lease's znode holds the names of the top folders of its records.

To end a lease, its znode is renamed first, in one transaction that checks its version. After that
no session can keep the lease alive or create records on it. If the one who renamed it dies, the
next sweep finishes the work.

This module may import ``llutil.ledgers`` and this folder.
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

__all__ = ["LeaseFolder", "LeaseZnode", "end", "grant", "new_name", "read_lease", "renew", "sweep"]

_log = logging.getLogger(__name__)

# Number of leases, and of folders, that one sweep checks. A random choice, so that each one is
# checked at some time.
_SAMPLE_SIZE = 16
_OVER_PREFIX = "over-"
# Milliseconds. An empty folder younger than this may belong to a job that begins or waits.
_YOUNG_FOLDER = 86_400_000


@dataclass(frozen=True, slots=True)
class LeaseZnode:
    """A lease at ``version`` of its znode, which was written at ``written_ms`` (the server's clock,
    in ms).

    ``ttl`` is in seconds. ``top_folders`` are the top folders of its records.
    """

    name: str
    ttl: float
    top_folders: tuple[str, ...]
    version: int
    written_ms: int

    @property
    def data(self) -> bytes:
        """The content of its znode."""
        return json.dumps({"version": 1, "ttl": self.ttl, "tops": self.top_folders}).encode()

    def is_over(self, now_ms: int) -> bool:
        """Whether it is over at ``now_ms`` (the server's clock, in ms)."""
        return now_ms > self.written_ms + self.ttl * 1000


@dataclass(frozen=True, slots=True)
class LeaseFolder:
    """The folder of the granted leases: its paths, and the session that reaches it."""

    kazoo: KazooSession
    paths: ZnodePaths

    def reader(self, deadline: float) -> ZnodeReader:
        """A reader with that deadline."""
        return ZnodeReader(self.kazoo, self.paths, deadline)


def _parse(name: str, data: bytes, stat: Any) -> LeaseZnode:
    try:
        value = json.loads(data)
        top_folders = tuple(str(top) for top in value["tops"])
        return LeaseZnode(
            name, float(value["ttl"]), top_folders, int(stat.version), int(stat.mtime)
        )
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerConflict(
            f"the znode of the lease {name!r} was written by other software; use another namespace"
        ) from error


def read_lease(reader: ZnodeReader, paths: ZnodePaths, name: str) -> LeaseZnode | None:
    """The lease of that name; None if it is over. For use within ``KazooSession.retry``.

    :raises LedgerConflict: its znode was written by other software.
    """
    path = paths.lease(name)
    try:
        data, stat = reader.ask(lambda client: client.get_async(path))
    except zk.NoNodeError:
        return None
    return _parse(name, data, stat)


def new_name() -> str:
    """The name of a lease that is to be granted. If the answer to a first attempt is lost, a second
    one finds the lease that the first one granted.
    """
    return f"lease-{secrets.token_hex(8)}"


def grant(leases: LeaseFolder, name: str, ttl: float, *, deadline: float) -> LeaseZnode:
    """Grant the lease ``name`` of ``ttl`` seconds, unless an earlier attempt did."""
    lease = LeaseZnode(name, ttl, (), 0, 0)
    path = leases.paths.lease(lease.name)

    def act(_: bool) -> LeaseZnode:
        reader = leases.reader(deadline)
        while True:
            try:
                _, stat = reader.ask(
                    lambda client: client.create_async(path, lease.data, include_data=True)
                )
            except zk.NoNodeError:
                reader.create_folder(leases.paths.leases_folder)
            except zk.NodeExistsError:
                renewed = _renew(reader, leases.paths, name)
                if renewed is not None:
                    return renewed
            else:
                return replace(lease, written_ms=int(stat.mtime))

    return leases.kazoo.retry(f"grant a lease of {ttl:g} s", act, deadline=deadline)


def renew(leases: LeaseFolder, name: str, *, deadline: float) -> LeaseZnode | None:
    """Renew a lease; None if it is over."""
    return leases.kazoo.retry(
        f"renew {name}",
        lambda _: _renew(leases.reader(deadline), leases.paths, name),
        deadline=deadline,
    )


def _renew(reader: ZnodeReader, paths: ZnodePaths, name: str) -> LeaseZnode | None:
    path = paths.lease(name)
    while (lease := read_lease(reader, paths, name)) is not None:
        data, version = lease.data, lease.version
        try:
            stat = reader.ask(lambda client: client.set_async(path, data, version))  # noqa: B023
        except (zk.BadVersionError, zk.NoNodeError):
            continue
        return replace(lease, version=int(stat.version), written_ms=int(stat.mtime))
    return None


def end(leases: LeaseFolder, name: str, *, deadline: float) -> None:
    """End a lease, and remove all its records. It is no error if it is over already."""

    def act(_: bool) -> None:
        reader = leases.reader(deadline)
        while (lease := read_lease(reader, leases.paths, name)) is not None:
            if _rename_as_over(reader, leases.paths, lease):
                break
        _remove_records(reader, leases.paths, name)

    leases.kazoo.retry(f"end {name}", act, deadline=deadline)


def _rename_as_over(reader: ZnodeReader, paths: ZnodePaths, lease: LeaseZnode) -> bool:
    """Rename the lease's znode; False if somebody has written it since ``lease`` was read."""

    def send(client: Any) -> Any:
        transaction = client.transaction()
        transaction.delete(paths.lease(lease.name), lease.version)
        transaction.create(paths.lease(_OVER_PREFIX + lease.name), lease.data)
        return transaction.commit_async()

    return not any(isinstance(one, Exception) for one in reader.ask(send))


def _remove_records(reader: ZnodeReader, paths: ZnodePaths, name: str) -> None:
    """Remove the records of a renamed lease, the folders that are empty then, and the lease's
    znode.
    """
    lease = read_lease(reader, paths, _OVER_PREFIX + name)
    if lease is None:
        return
    for top in lease.top_folders:
        znodes, folders = reader.all_below(top)
        for znode in znodes:
            for record in () if znode.session else reader.records([znode]) or ():
                if record.lease == name:
                    _delete(reader, znode.path)
        reader.remove_folders([path for path in folders if path != paths.folder("")])
    _delete(reader, paths.lease(_OVER_PREFIX + name))


def _delete(reader: ZnodeReader, path: str) -> None:
    try:
        reader.ask(lambda client: client.delete_async(path))
    except zk.NoNodeError:
        return


def sweep(leases: LeaseFolder, now_ms: int, *, deadline: float) -> None:
    """Check some leases and some folders. End the leases that are over at ``now_ms`` (the server's
    clock, in ms); remove the folders that are empty.
    """

    def act(_: bool) -> None:
        reader = leases.reader(deadline)
        names, _ = reader.ask(
            lambda client: client.get_children_async(leases.paths.leases_folder, include_data=True)
        )
        for name in _sample(names):
            lease = read_lease(reader, leases.paths, name)
            if lease is None:
                continue
            if name.startswith(_OVER_PREFIX):
                _remove_records(reader, leases.paths, name.removeprefix(_OVER_PREFIX))
            elif lease.is_over(now_ms) and _rename_as_over(reader, leases.paths, lease):
                _log.info("%s was over; it is removed with its records", name)
                _remove_records(reader, leases.paths, name)
        _sweep_folders(reader, leases.paths, now_ms)

    leases.kazoo.retry("sweep what is over", act, deadline=deadline)


def _sample(names: list[str]) -> list[str]:
    return random.sample(names, min(_SAMPLE_SIZE, len(names)))


def _sweep_folders(reader: ZnodeReader, paths: ZnodePaths, now_ms: int) -> None:
    top_folders = [paths.subfolder("", name) for name in reader.listing("").names]
    for top in _sample([top for top in top_folders if top is not None]):
        if reader.listing(top).created_ms + _YOUNG_FOLDER > now_ms:
            continue
        znodes, folders = reader.all_below(top)
        if not znodes:
            reader.remove_folders(folders)
