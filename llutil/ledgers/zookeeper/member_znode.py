"""``MemberZnode``: a session's own record in a folder. It is put once, even if answers are lost.

ZooKeeper creates an ephemeral sequential znode for each request. So a znode that may exist already
is looked for first, and of two the younger one is deleted. The calls are for use within
``KazooSession.retry``. This module may import ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

from kazoo import exceptions as zk

from llutil.ledgers.errors import LedgerConflict
from llutil.ledgers.protocol import Joined, Record, View
from llutil.ledgers.zookeeper.kazoo_session import KazooSessionOver
from llutil.ledgers.zookeeper.session_handshake import GrantedSession
from llutil.ledgers.zookeeper.znode_paths import RecordZnode, ZnodePaths, session_name
from llutil.ledgers.zookeeper.znode_reader import FolderListing, ZnodeReader

__all__ = ["MemberZnode"]


class MemberZnode:
    """Puts the own records of one session."""

    def __init__(self, paths: ZnodePaths, granted: GrantedSession) -> None:
        self._paths = paths
        self._granted = granted
        self._name = session_name(granted.session_id)
        self._maybe_created: set[str] = set()
        """Keys that this session may have created."""

    def join(
        self, reader: ZnodeReader, folder: str, key: str, value: bytes, scopes: list[str]
    ) -> Joined:
        """Put the session's own record; then read the folder's names and the scopes.

        :raises LedgerConflict: another session has a record of that key, or this session has one
            with another value.
        """
        own, listing = self._own_record(reader, folder, key, value)
        members = View(self._members(folder, listing, own), listing.revision)
        return Joined(own, members, {scope: reader.view(scope) for scope in scopes})

    def _own_record(
        self, reader: ZnodeReader, folder: str, key: str, value: bytes
    ) -> tuple[Record, FolderListing]:
        """The session's own record, created if it does not exist, and a listing of its folder that
        is newer than the record.
        """
        again = key in self._maybe_created
        self._maybe_created.add(key)
        while True:
            listing = reader.listing(folder) if again else None
            mine = self._mine(folder, listing, key) if listing else []
            again = True
            if not mine:
                created = self._create_znode(reader, folder, key, value)
                listing = reader.listing(folder)
                mine = self._mine(folder, listing, key)
                if created not in [znode.path for znode in mine]:
                    continue  # another process deleted it
            assert listing is not None
            (holder,) = [znode for znode in self._nodes(folder, listing) if znode.key == key]
            extra = mine[1:] if self._is_mine(holder) else mine
            for znode in extra:
                self._remove(reader, znode.path)
            if not self._is_mine(holder):
                raise LedgerConflict(
                    f"join as {key!r}: session {holder.session or '(none)'} has a record of that "
                    "name; every node needs a name of its own"
                )
            found = reader.records([holder])
            if found is None:
                continue
            if found[0].value != value:
                raise LedgerConflict(
                    f"join as {key!r}: this session has that record already, with another value"
                )
            return found[0], listing

    def _create_znode(self, reader: ZnodeReader, folder: str, key: str, value: bytes) -> str:
        """Create the session's own record; return its path."""
        stem = self._paths.session_record_prefix(key, self._name)
        while True:
            try:
                path, stat = reader.ask(
                    lambda client: client.create_async(
                        stem, value, ephemeral=True, sequence=True, include_data=True
                    )
                )
            except zk.NoNodeError:
                reader.create_folder(self._paths.folder(folder))
                continue
            if stat.ephemeralOwner != self._granted.session_id:
                raise KazooSessionOver("kazoo's connection belongs to another session now")
            return str(path)

    def _remove(self, reader: ZnodeReader, path: str) -> None:
        """Delete a znode, if it exists."""
        try:
            reader.ask(lambda client: client.delete_async(path))
        except zk.NoNodeError:
            return

    def _nodes(self, folder: str, listing: FolderListing) -> list[RecordZnode]:
        return self._paths.record_znodes(folder, listing.names)

    def _mine(self, folder: str, listing: FolderListing, key: str) -> list[RecordZnode]:
        """This session's records of that key, oldest first. There are several if an answer was
        lost.
        """
        found = [self._paths.record_znode(folder, name) for name in listing.names]
        mine = [znode for znode in found if znode and znode.key == key and self._is_mine(znode)]
        return sorted(mine, key=lambda znode: znode.sequence)

    def _is_mine(self, znode: RecordZnode) -> bool:
        return znode.session == self._name

    def _members(self, folder: str, listing: FolderListing, own: Record) -> tuple[Record, ...]:
        znodes = sorted(self._nodes(folder, listing), key=lambda znode: (znode.sequence, znode.key))
        return tuple(
            own if znode.key == own.key else Record(znode.key, b"", znode.sequence, znode.session)
            for znode in znodes
        )
