"""The transactions of a living node: create records together, and delete records, if the node's own
record exists.

A transaction of ZooKeeper can check, create and delete, but not read. It reports the first
operation that failed. So the operations are in the order in which a failure matters: the guard, the
records, the lease. The calls are for use within ``KazooSession.retry``. This module may import
``llutil.ledgers`` and this folder.
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

# Deletions in one transaction.
_MAX_DELETIONS = 200


class ZnodeWriter:
    """Writes the records of one session, except its own record."""

    def __init__(self, paths: ZnodePaths) -> None:
        self._paths = paths
        self._known_top_folders: dict[str, set[str]] = {}
        """By lease: the top folders that its znode certainly names."""

    def create(
        self,
        reader: ZnodeReader,
        values: Mapping[str, bytes],
        guard: Record,
        lease: str,
        maybe_applied: bool,
    ) -> CreateResult | None:
        """Create all records or none; None if the lease is over. ``maybe_applied`` says that an
        earlier run may have created them.
        """
        keys = list(values)
        top_folders = {_top_folder(key) for key in keys}
        while True:
            known = self._lease_update(reader, lease, top_folders)
            results = reader.ask(partial(self._send_create, values, guard, known))
            failed = [
                (index, one)
                for index, one in enumerate(results)
                if isinstance(one, Exception)
                and not isinstance(one, zk.RolledBackError | zk.RuntimeInconsistency)
            ]
            if not failed:
                self._known_top_folders.setdefault(lease, set()).update(top_folders)
                created = self._created_zxid(reader, keys)
                return Created(tuple(Record(key, values[key], created, lease) for key in keys))
            index, error = failed[0]
            if isinstance(error, zk.NoAuthError):
                raise error
            existing = self._existing(reader, keys)
            if maybe_applied and {record.key: record.value for record in existing} == values:
                return Created(existing)  # an earlier run of this call created them
            if index == 0:
                return GuardGone()
            if existing:
                return Exists(existing)
            if index > len(keys):
                self._known_top_folders.pop(lease, None)
                if isinstance(error, zk.NoNodeError):
                    return None
            elif isinstance(error, zk.NoNodeError):
                for folder in dict.fromkeys(self._paths.parent(key) for key in keys):
                    reader.create_folder(self._paths.folder(folder))
            elif not isinstance(error, zk.NodeExistsError):
                raise error

    def _lease_update(
        self, reader: ZnodeReader, name: str, top_folders: set[str]
    ) -> tuple[str, bytes, int]:
        """The lease's path, and the data and version to write there so that it names
        ``top_folders``. Version -2 means that nothing is to be written.
        """
        path = self._paths.lease(name)
        if top_folders <= self._known_top_folders.get(name, set()):
            return path, b"", -2
        lease = lease_znodes.read_lease(reader, self._paths, name)
        if lease is None:
            # The transaction reports that the lease is over, unless the guard or a record fails.
            return path, b"", -2
        self._known_top_folders[name] = set(lease.top_folders)
        if top_folders <= self._known_top_folders[name]:
            return path, b"", -2
        more = tuple(sorted({*lease.top_folders, *top_folders}))
        return path, lease_znodes.LeaseZnode(name, lease.ttl, more, 0, 0).data, lease.version

    def _send_create(
        self,
        values: Mapping[str, bytes],
        guard: Record,
        lease: tuple[str, bytes, int],
        client: Any,
    ) -> Any:
        path, data, version = lease
        name = path.rpartition("/")[2]
        transaction = client.transaction()
        transaction.check(self._paths.record(guard), -1)
        for key, value in values.items():
            transaction.create(self._paths.leased_record(key), pack(name, value))
        if version < -1:
            transaction.check(path, -1)
        else:
            transaction.set_data(path, data, version)
        return transaction.commit_async()

    def _created_zxid(self, reader: ZnodeReader, keys: list[str]) -> int:
        """The number of the transaction that has just created these records."""
        path = self._paths.leased_record(keys[0])
        stat = reader.ask(lambda client: client.exists_async(path))
        return int(stat.czxid) if stat is not None else 0

    def _existing(self, reader: ZnodeReader, keys: list[str]) -> tuple[Record, ...]:
        """Those of these records that exist."""
        found = [
            reader.records([RecordZnode(self._paths.leased_record(key), key.lstrip("/"))]) or []
            for key in keys
        ]
        return tuple(record for records in found for record in records)

    def delete(self, reader: ZnodeReader, scopes: tuple[str, ...], guard: Record) -> bool:
        """Delete what is in and below the scopes, a few hundred records at a time; say whether the
        guard was there.
        """
        while True:
            paths, folders = self._records_below(reader, scopes)
            if not paths:
                alive = self._exists(reader, guard)
                if alive:
                    reader.remove_folders(folders)
                return alive
            for start in range(0, len(paths), _MAX_DELETIONS):
                some = paths[start : start + _MAX_DELETIONS]
                results = reader.ask(partial(self._send_delete, guard, some))
                if isinstance(results[0], zk.NoNodeError):
                    return False
                for one in results:
                    if isinstance(one, zk.NoAuthError):
                        raise one

    def _records_below(
        self, reader: ZnodeReader, scopes: tuple[str, ...]
    ) -> tuple[list[str], list[str]]:
        """The paths of the records in and below the scopes, and of the folders there."""
        paths: list[str] = []
        folders: list[str] = []
        listings: dict[str, FolderListing] = {}
        for scope in scopes:
            if scope.endswith("/"):
                znodes, more = reader.all_below(scope)
                folders += more
            else:
                parent = self._paths.parent(scope)
                if parent not in listings:
                    listings[parent] = reader.listing(parent)
                znodes = reader.record_znodes(scope, listings[parent])
            paths += [znode.path for znode in znodes]
        return list(dict.fromkeys(paths)), folders

    def _exists(self, reader: ZnodeReader, record: Record) -> bool:
        path = self._paths.record(record)
        return reader.ask(lambda client: client.exists_async(path)) is not None

    def _send_delete(self, guard: Record, paths: list[str], client: Any) -> Any:
        transaction = client.transaction()
        transaction.check(self._paths.record(guard), -1)
        for path in paths:
            transaction.delete(path)
        return transaction.commit_async()


def _top_folder(key: str) -> str:
    """The top folder that contains a key; "" if the key is in no folder."""
    first, slash, _ = key.partition("/")
    return first + slash if slash else ""
