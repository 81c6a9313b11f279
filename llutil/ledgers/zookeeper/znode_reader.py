"""Reading: what a scope holds, as a ``View`` of one moment; and making the folders that records lie
in.

ZooKeeper lists a folder's names in one request, and each record takes another. A record never
changes, so if all that were listed are still there when they are read, the view is that of the
moment of the listing; else it is listed again.

Of ours this module imports ``llutil.ledgers`` and what lies in this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kazoo import exceptions as zk

from llutil.ledgers.errors import LedgerConflict, LedgerRefused
from llutil.ledgers.keys import by_arrival
from llutil.ledgers.protocol import Record, View
from llutil.ledgers.zookeeper.kazoo_session import KazooSession
from llutil.ledgers.zookeeper.znode_paths import RecordZnode, ZnodePaths

__all__ = ["EMPTY", "FolderListing", "ZnodeReader", "pack", "unpack"]

Watcher = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class FolderListing:
    """A folder at one moment. ``born`` and ``changes`` tell what came and went in between two
    listings.

    ``made`` is when it was made, in ms of the server's clock.
    """

    names: frozenset[str]
    born: int
    changes: int
    revision: int
    made: int = 0


EMPTY = FolderListing(frozenset(), 0, 0, 0)
"""A folder that is not there."""


def pack(lease: str, value: bytes) -> bytes:
    """What a node holds for a record that goes with a granted lease."""
    return lease.encode() + b"\n" + value


def unpack(node: RecordZnode, data: bytes, created: int) -> Record:
    """The record in a node. :raises LedgerConflict: the data are none of ours."""
    if node.session:
        return Record(node.key, data, node.sequence, node.session)
    lease, found, value = data.partition(b"\n")
    if not found or not lease.startswith(b"lease-") or not lease.isascii():
        raise LedgerConflict(
            f"the node {node.path!r} holds what no node of ours wrote; something else uses this namespace: choose "
            "another. Nothing was changed"
        )
    return Record(node.key, value, created, lease.decode())


def _get(path: str) -> Callable[[Any], Any]:
    return lambda client: client.get_async(path)


def _delete(path: str) -> Callable[[Any], Any]:
    return lambda client: client.delete_async(path)


class ZnodeReader:
    """Reads through ``line``. Its calls belong within ``KazooSession.trying``."""

    def __init__(self, line: KazooSession, places: ZnodePaths, deadline: float) -> None:
        self.line = line
        self._places = places
        self._deadline = deadline

    def ask(self, send: Callable[[Any], Any]) -> Any:
        """The answer to one request."""
        return self.line.ask(send, deadline=self._deadline)

    def sync(self) -> None:
        """See, from here on, all that was written before: a server may lag behind the others."""
        self.ask(lambda client: client.sync_async("/"))

    def listing(self, folder: str, watcher: Watcher | None = None) -> FolderListing:
        """The names in a folder of keys. ``watcher`` is called once when they, or the folder
        itself, change.
        """
        path = self._places.folder(folder)
        while True:
            try:
                names, stat = self.ask(
                    lambda client: client.get_children_async(path, watcher, include_data=True)
                )
            except zk.NoNodeError:
                if watcher is None:
                    return EMPTY
                if self.ask(lambda client: client.exists_async(path, watcher)) is None:
                    return EMPTY
                continue  # it was made in between
            return FolderListing(
                frozenset(names), stat.czxid, stat.cversion, stat.pzxid, stat.ctime
            )

    def records(self, nodes: list[RecordZnode]) -> list[Record] | None:
        """The records in these nodes; None if one of them is gone, and the listing with it."""
        sent = [self.line.send(_get(node.path), deadline=self._deadline) for node in nodes]
        found = []
        for node, result in zip(nodes, sent, strict=True):
            try:
                data, stat = self.line.answer(result, deadline=self._deadline)
            except zk.NoNodeError:
                return None
            found.append(unpack(node, data, stat.czxid))
        return found

    def nodes(self, scope: str, listing: FolderListing) -> list[RecordZnode]:
        """Those of a listing that ``scope`` holds."""
        found = self._places.nodes(self._places.parent(scope), listing.names)
        return found if scope.endswith("/") else [node for node in found if node.key == scope]

    def scope(
        self,
        scope: str,
        watcher: Watcher | None = None,
        known: Mapping[str, Record] | None = None,
        before: FolderListing = EMPTY,
    ) -> tuple[dict[str, Record], FolderListing]:
        """What a scope holds, by path. ``known`` is what it held at ``before``, and is not read
        again if that will do.
        """
        while True:
            listing = self.listing(self._places.parent(scope), watcher)
            nodes = self.nodes(scope, listing)
            old = dict(known or {})
            came, went = listing.names - before.names, before.names - listing.names
            same = listing.born == before.born
            if not (same and listing.changes - before.changes == len(came) + len(went)):
                old = {}  # something went and came again in between
            fresh = self.records([node for node in nodes if node.path not in old])
            if fresh is not None:
                paths = [node.path for node in nodes if node.path not in old]
                old |= dict(zip(paths, fresh, strict=True))
                return {node.path: old[node.path] for node in nodes}, listing

    def view(self, scope: str) -> View:
        """The state of a scope."""
        records, listing = self.scope(scope)
        return View(by_arrival(records.values()), listing.revision)

    def below(self, folder: str) -> tuple[list[RecordZnode], list[str]]:
        """All records in and below a folder of keys, and the paths of the folders, from the bottom
        up.
        """
        listing = self.listing(folder)
        nodes: list[RecordZnode] = []
        paths: list[str] = []
        if listing is EMPTY:
            return nodes, paths
        for name in sorted(listing.names):
            node = self._places.node(folder, name)
            inner = self._places.subfolder(folder, name)
            if node is not None:
                nodes.append(node)
            elif inner is not None:
                more, deeper = self.below(inner)
                nodes += more
                paths += deeper
        return nodes, [*paths, self._places.folder(folder)]

    def make_folder(self, path: str) -> None:
        """Make a folder's node, and those above it. :raises LedgerRefused: the chroot is not there.

        What is there is looked for first: a creation that fails goes through the log of all
        servers, a look through none.
        """
        while True:
            missing = [path]
            while (parent := missing[-1].rpartition("/")[0]) and not self._is_there(parent):
                missing.append(parent)
            try:
                for one in reversed(missing):
                    self._make(one)
            except zk.NoNodeError:
                if not self._is_there("/"):
                    raise LedgerRefused(
                        f"the chroot {self.line.config.chroot!r} is not there on {self.line.config}; create it, or "
                        "correct the endpoint"
                    ) from None
            else:
                return

    def _is_there(self, path: str) -> bool:
        return self.ask(lambda client: client.exists_async(path)) is not None

    def _make(self, path: str) -> None:
        try:
            self.ask(lambda client: client.create_async(path, b""))
        except zk.NodeExistsError:
            return

    def remove_folders(self, paths: list[str]) -> None:
        """Remove those of these folders that are empty; from the bottom up."""
        for path in paths:
            try:
                self.ask(_delete(path))
            except (zk.NotEmptyError, zk.NoNodeError):
                continue
