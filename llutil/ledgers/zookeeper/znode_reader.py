"""``ZnodeReader``: reads a scope as a ``View`` of one moment, and creates and removes folders.

ZooKeeper lists a folder's names in one request; each record takes one more request. A record never
changes. So if all listed records still exist when they are read, the view is that of the moment of
the listing. Otherwise the folder is listed again.

This module may import ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kazoo import exceptions as zk

from llutil.ledgers.errors import LedgerRefused
from llutil.ledgers.keys import by_arrival
from llutil.ledgers.protocol import Record, View
from llutil.ledgers.zookeeper.kazoo_session import KazooSession
from llutil.ledgers.zookeeper.znode_paths import RecordZnode, ZnodePaths

__all__ = ["NO_FOLDER", "FolderListing", "ZnodeReader", "pack", "unpack"]

Watcher = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The names in a folder at one moment.

    ``created_zxid`` is the transaction that created the folder. ``child_version`` counts the
    changes of its children. Together they tell whether something came and went between two
    listings. ``created_ms`` is when it was created (the server's clock, in ms).
    """

    names: frozenset[str]
    created_zxid: int
    child_version: int
    revision: int
    created_ms: int = 0


NO_FOLDER = FolderListing(frozenset(), 0, 0, 0)
"""The listing of a folder that does not exist."""


def pack(lease: str, value: bytes) -> bytes:
    """The content of the znode of a record that belongs to a granted lease."""
    return lease.encode() + b"\n" + value


def unpack(znode: RecordZnode, data: bytes, stat: Any) -> Record:
    """The record in a znode. What other software wrote there belongs to no lease."""
    if znode.session:
        return Record(znode.key, data, znode.sequence, znode.session if stat.ephemeralOwner else "")
    lease, found, value = data.partition(b"\n")
    if not found or not lease.startswith(b"lease-") or not lease.isascii():
        return Record(znode.key, data, stat.czxid)
    return Record(znode.key, value, stat.czxid, lease.decode())


def _get(path: str) -> Callable[[Any], Any]:
    return lambda client: client.get_async(path)


def _delete(path: str) -> Callable[[Any], Any]:
    return lambda client: client.delete_async(path)


class ZnodeReader:
    """Reads through ``kazoo`` until ``deadline``. Its calls are for use within
    ``KazooSession.retry``.
    """

    def __init__(self, kazoo: KazooSession, paths: ZnodePaths, deadline: float) -> None:
        self.kazoo = kazoo
        self._paths = paths
        self._deadline = deadline

    def ask(self, send: Callable[[Any], Any]) -> Any:
        """Send one request and return its answer."""
        return self.kazoo.ask(send, deadline=self._deadline)

    def sync(self) -> None:
        """Make later reads see everything that was written before, even if the server lags
        behind.
        """
        self.ask(lambda client: client.sync_async("/"))

    def listing(self, folder: str, watcher: Watcher | None = None) -> FolderListing:
        """The names in a folder of keys. ``watcher`` is called once when they or the folder itself
        change.
        """
        path = self._paths.folder(folder)
        while True:
            try:
                names, stat = self.ask(
                    lambda client: client.get_children_async(path, watcher, include_data=True)
                )
            except zk.NoNodeError:
                if watcher is None:
                    return NO_FOLDER
                if self.ask(lambda client: client.exists_async(path, watcher)) is None:
                    return NO_FOLDER
                continue  # it was created in between
            return FolderListing(
                frozenset(names), stat.czxid, stat.cversion, stat.pzxid, stat.ctime
            )

    def records(self, znodes: list[RecordZnode]) -> list[Record] | None:
        """The records in these znodes; None if one of them is gone, so that the listing is out of
        date.
        """
        sent = [self.kazoo.send(_get(znode.path), deadline=self._deadline) for znode in znodes]
        found = []
        for znode, result in zip(znodes, sent, strict=True):
            try:
                data, stat = self.kazoo.answer(result, deadline=self._deadline)
            except zk.NoNodeError:
                return None
            found.append(unpack(znode, data, stat))
        return found

    def record_znodes(self, scope: str, listing: FolderListing) -> list[RecordZnode]:
        """The znodes of a listing that are in ``scope``."""
        found = self._paths.record_znodes(self._paths.parent(scope), listing.names)
        return found if scope.endswith("/") else [znode for znode in found if znode.key == scope]

    def records_in(
        self,
        scope: str,
        watcher: Watcher | None = None,
        known: Mapping[str, Record] | None = None,
        before: FolderListing = NO_FOLDER,
    ) -> tuple[dict[str, Record], FolderListing]:
        """The records in a scope, by path, and the listing of its folder.

        ``known`` are the records of the scope at the listing ``before``. They are not read again,
        unless something may have come and gone in between.
        """
        while True:
            listing = self.listing(self._paths.parent(scope), watcher)
            znodes = self.record_znodes(scope, listing)
            old = dict(known or {})
            came, went = listing.names - before.names, before.names - listing.names
            same = listing.created_zxid == before.created_zxid
            if not (same and listing.child_version - before.child_version == len(came) + len(went)):
                old = {}  # something came and went in between
            fresh = self.records([znode for znode in znodes if znode.path not in old])
            if fresh is not None:
                paths = [znode.path for znode in znodes if znode.path not in old]
                old |= dict(zip(paths, fresh, strict=True))
                return {znode.path: old[znode.path] for znode in znodes}, listing

    def view(self, scope: str) -> View:
        """The present state of a scope."""
        records, listing = self.records_in(scope)
        return View(by_arrival(records.values()), listing.revision)

    def all_below(self, folder: str) -> tuple[list[RecordZnode], list[str]]:
        """All records in and below a folder of keys, and the paths of its folders, deepest
        first.
        """
        listing = self.listing(folder)
        znodes: list[RecordZnode] = []
        paths: list[str] = []
        if listing is NO_FOLDER:
            return znodes, paths
        for name in sorted(listing.names):
            znode = self._paths.record_znode(folder, name)
            inner = self._paths.subfolder(folder, name)
            if znode is not None:
                znodes.append(znode)
            elif inner is not None:
                more, deeper = self.all_below(inner)
                znodes += more
                paths += deeper
        return znodes, [*paths, self._paths.folder(folder)]

    def create_folder(self, path: str) -> None:
        """Create a folder's znode, and those above it if they do not exist.

        It checks first whether a znode exists. A creation that fails is written to the logs of all
        servers; a check is not.

        :raises LedgerRefused: the chroot does not exist.
        """
        while True:
            missing = [path]
            while (parent := missing[-1].rpartition("/")[0]) and not self._exists(parent):
                missing.append(parent)
            try:
                for one in reversed(missing):
                    self._create(one)
            except zk.NoNodeError:
                if not self._exists("/"):
                    raise LedgerRefused(
                        f"{self.kazoo.config} has no chroot {self.kazoo.config.chroot!r}; "
                        "create it, or correct the endpoint"
                    ) from None
            else:
                return

    def _exists(self, path: str) -> bool:
        return self.ask(lambda client: client.exists_async(path)) is not None

    def _create(self, path: str) -> None:
        try:
            self.ask(lambda client: client.create_async(path, b""))
        except zk.NodeExistsError:
            return

    def remove_folders(self, paths: list[str]) -> None:
        """Remove those of these folders that are empty. The paths are deepest first."""
        for path in paths:
            try:
                self.ask(_delete(path))
            except (zk.NotEmptyError, zk.NoNodeError):
                continue
