"""Joining: a session's own record in a folder, put once however often its answer is lost.

ZooKeeper makes an ephemeral sequential node at each request, so one that may have been made is
looked for first, and of two the younger goes. Calls belong within ``Line.trying``. Of ours this
module imports ``llutil.ledgers`` and what lies in this folder.
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
    """What puts and removes the own records of one session."""

    def __init__(self, places: ZnodePaths, granted: GrantedSession) -> None:
        self._places = places
        self._granted = granted
        self._name = session_name(granted.session)
        self._lives = 0
        """How often this session has left: the records of each life have names of their own."""
        self._tried: set[str] = set()
        """Keys that this session may have created."""

    def join(
        self, reader: ZnodeReader, folder: str, key: str, value: bytes, scopes: list[str]
    ) -> Joined:
        """Put the own record, then read the folder's names and the scopes.

        :raises LedgerConflict: another session has a record of that key, or this one with another
            value.
        """
        own, listing = self._own(reader, folder, key, value)
        members = View(self._members(folder, listing, own), listing.revision)
        return Joined(own, members, {scope: reader.view(scope) for scope in scopes})

    def left(self) -> None:
        """The session leaves: what it puts from now on has another name."""
        self._lives += 1

    def _own(
        self, reader: ZnodeReader, folder: str, key: str, value: bytes
    ) -> tuple[Record, FolderListing]:
        """The own record, created if it is not there, and the names in its folder from then on."""
        again = key in self._tried
        self._tried.add(key)
        while True:
            listing = reader.listing(folder) if again else None
            mine = self._mine(folder, listing, key) if listing else []
            again = True
            if not mine:
                created = self._put(reader, folder, key, value)
                listing = reader.listing(folder)
                mine = self._mine(folder, listing, key)
                if created not in [node.path for node in mine]:
                    continue  # somebody deleted it
            assert listing is not None
            (holder,) = [node for node in self._nodes(folder, listing) if node.key == key]
            extra = mine[1:] if self._is_mine(holder) else mine
            for node in extra:
                self.remove(reader, node.path)
            if not self._is_mine(holder):
                raise LedgerConflict(
                    f"join as {key!r}: that record is there already, of session {holder.session or '(none)'}; "
                    "every node needs a name of its own"
                )
            found = reader.records([holder])
            if found is None:
                continue
            if found[0].value != value:
                raise LedgerConflict(
                    f"join as {key!r}: this session has put that record already, with another value"
                )
            return found[0], listing

    def _put(self, reader: ZnodeReader, folder: str, key: str, value: bytes) -> str:
        """Create the own record. Its path."""
        stem = self._places.stem(key, f"{self._name}.{self._lives}")
        while True:
            try:
                path, stat = reader.ask(
                    lambda client: client.create_async(
                        stem, value, ephemeral=True, sequence=True, include_data=True
                    )
                )
            except zk.NoNodeError:
                reader.make_folder(self._places.folder(folder))
                continue
            if stat.ephemeralOwner != self._granted.session:
                raise KazooSessionOver("its connection has got another session")
            return str(path)

    def remove(self, reader: ZnodeReader, path: str) -> None:
        """Delete a node, if it is there."""
        try:
            reader.ask(lambda client: client.delete_async(path))
        except zk.NoNodeError:
            return

    def _nodes(self, folder: str, listing: FolderListing) -> list[RecordZnode]:
        return self._places.nodes(folder, listing.names)

    def _mine(self, folder: str, listing: FolderListing, key: str) -> list[RecordZnode]:
        """This session's records of that key, the oldest first; more than one if an answer was
        lost.
        """
        found = [self._places.node(folder, name) for name in listing.names]
        mine = [node for node in found if node and node.key == key and self._is_mine(node)]
        return sorted(mine, key=lambda node: node.sequence)

    def _is_mine(self, node: RecordZnode) -> bool:
        return node.session.startswith(f"{self._name}.")

    def _members(self, folder: str, listing: FolderListing, own: Record) -> tuple[Record, ...]:
        nodes = sorted(self._nodes(folder, listing), key=lambda node: (node.sequence, node.key))
        return tuple(
            own if node.key == own.key else Record(node.key, b"", node.sequence, node.session)
            for node in nodes
        )
