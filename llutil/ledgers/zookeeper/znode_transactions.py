"""The transactions of a living node: records created together, and records deleted, if its own
record is there.

ZooKeeper's transaction can check, create and delete, but not read; and it tells of the first
operation that failed. So the order of the operations is that in which failures count: the guard,
the records, the lease. Calls belong within ``Line.trying``. Of ours this module imports
``llutil.ledgers`` and what lies in this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from kazoo import exceptions as zk

from llutil.ledgers.protocol import Created, CreateResult, Exists, GuardGone, Record
from llutil.ledgers.zookeeper import lease_znodes
from llutil.ledgers.zookeeper.znode_paths import RecordZnode, ZnodePaths
from llutil.ledgers.zookeeper.znode_reader import FolderListing, ZnodeReader, pack

__all__ = ["ZnodeWriter"]

_MOST = 200  # deletions in one transaction


class ZnodeWriter:
    """What one session writes beside its own record."""

    def __init__(self, places: ZnodePaths) -> None:
        self._places = places
        self._tops: dict[str, set[str]] = {}
        """By lease: the top folders that its node is known to name."""

    def create(
        self,
        reader: ZnodeReader,
        values: Mapping[str, bytes],
        guard: Record,
        lease: str,
        doubtful: bool,
    ) -> CreateResult | None:
        """Create records, all or none; None if the lease is over. ``doubtful``: an earlier try may
        have done it.
        """
        keys = list(values)
        tops = {_top(key) for key in keys}
        while True:
            known = self._known_lease(reader, lease, tops)
            results = reader.ask(partial(self._creation, values, guard, known))
            failed = [
                (index, one)
                for index, one in enumerate(results)
                if isinstance(one, Exception)
                and not isinstance(one, zk.RolledBackError | zk.RuntimeInconsistency)
            ]
            if not failed:
                self._tops.setdefault(lease, set()).update(tops)
                created = self._created(reader, keys)
                return Created(tuple(Record(key, values[key], created, lease) for key in keys))
            index, error = failed[0]
            if isinstance(error, zk.NoAuthError):
                raise error
            there = self._there(reader, keys)
            if doubtful and {record.key: record.value for record in there} == values:
                return Created(there)  # an earlier attempt of this call did it
            if index == 0:
                return GuardGone()
            if there:
                return Exists(there)
            if index > len(keys):
                self._tops.pop(lease, None)
                if isinstance(error, zk.NoNodeError):
                    return None
            elif isinstance(error, zk.NoNodeError):
                for folder in dict.fromkeys(self._places.parent(key) for key in keys):
                    reader.make_folder(self._places.folder(folder))
            elif not isinstance(error, zk.NodeExistsError):
                raise error

    def _known_lease(
        self, reader: ZnodeReader, name: str, tops: set[str]
    ) -> tuple[str, bytes, int]:
        """The lease's path, and what to write there so that it names ``tops`` (version -2:
        nothing).
        """
        path = self._places.lease(name)
        if tops <= self._tops.get(name, set()):
            return path, b"", -2
        lease = lease_znodes.look(reader, self._places, name)
        if lease is None:
            return path, b"", -2  # the transaction finds out, after what matters more
        self._tops[name] = set(lease.tops)
        if tops <= self._tops[name]:
            return path, b"", -2
        more = tuple(sorted({*lease.tops, *tops}))
        return path, lease_znodes.LeaseZnode(name, lease.ttl, more, 0, 0).data, lease.version

    def _creation(
        self,
        values: Mapping[str, bytes],
        guard: Record,
        lease: tuple[str, bytes, int],
        client: Any,
    ) -> Any:
        path, data, version = lease
        name = path.rpartition("/")[2]
        transaction = client.transaction()
        transaction.check(self._places.path(guard), -1)
        for key, value in values.items():
            transaction.create(self._places.plain(key), pack(name, value))
        if version < -1:
            transaction.check(path, -1)
        else:
            transaction.set_data(path, data, version)
        return transaction.commit_async()

    def _created(self, reader: ZnodeReader, keys: list[str]) -> int:
        """The transaction that has just created these, as ZooKeeper counts them."""
        path = self._places.plain(keys[0])
        stat = reader.ask(lambda client: client.exists_async(path))
        return int(stat.czxid) if stat is not None else 0

    def _there(self, reader: ZnodeReader, keys: list[str]) -> tuple[Record, ...]:
        """Those of these records that exist."""
        found = [
            reader.records([RecordZnode(self._places.plain(key), key.lstrip("/"))]) or []
            for key in keys
        ]
        return tuple(record for records in found for record in records)

    def delete(self, reader: ZnodeReader, scopes: tuple[str, ...], guard: Record) -> bool:
        """Delete what is in and below the scopes, a few hundred records at a time; say whether the
        guard was there.
        """
        while True:
            paths, folders = self._below(reader, scopes)
            if not paths:
                alive = self._exists(reader, guard)
                if alive:
                    reader.remove_folders(folders)
                return alive
            for start in range(0, len(paths), _MOST):
                some = paths[start : start + _MOST]
                results = reader.ask(partial(self._deletion, guard, some))
                if isinstance(results[0], zk.NoNodeError):
                    return False
                for one in results:
                    if isinstance(one, zk.NoAuthError):
                        raise one

    def _below(self, reader: ZnodeReader, scopes: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """The records in and below the scopes, and the folders there."""
        paths: list[str] = []
        folders: list[str] = []
        listings: dict[str, FolderListing] = {}
        for scope in scopes:
            if scope.endswith("/"):
                nodes, more = reader.below(scope)
                folders += more
            else:
                parent = self._places.parent(scope)
                if parent not in listings:
                    listings[parent] = reader.listing(parent)
                nodes = reader.nodes(scope, listings[parent])
            paths += [node.path for node in nodes]
        return list(dict.fromkeys(paths)), folders

    def _exists(self, reader: ZnodeReader, record: Record) -> bool:
        path = self._places.path(record)
        return reader.ask(lambda client: client.exists_async(path)) is not None

    def _deletion(self, guard: Record, paths: list[str], client: Any) -> Any:
        transaction = client.transaction()
        transaction.check(self._places.path(guard), -1)
        for path in paths:
            transaction.delete(path)
        return transaction.commit_async()


def _top(key: str) -> str:
    """The top folder that a key lies in ("" if in none)."""
    first, slash, _ = key.partition("/")
    return first + slash if slash else ""
