"""The paths of a ledger's records, folders and leases in ZooKeeper. Pure functions on text.

The name of a record's znode begins with a mark. So a record ``a`` and a folder ``a`` have different
znodes, and a znode of other software is recognized as such. With the prefix
``/chroot/namespace/-/``:

::

    log/=seal                                      a record that belongs to a granted lease
    members/@ann:00000a3b4c5d6e7f.0:0000000042     a record that belongs to a session
                                                   (ephemeral, sequential)
    -/lease-0a1b2c...                              a granted lease; no key has the word "-"

The session's id in the name tells whose record it is, without a read. So a node finds the record
that it created, even if the answer was lost. The number after the id is how often the session has
left before; so no two records ever have the same name. The sequence number tells the order of
arrival. ZooKeeper counts it from 0 again in a folder that was removed and created again. If a
folder's name begins with a mark, its znode's name begins with ``%``.

This module may import the standard library and ``llutil.ledgers``, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llutil.ledgers.keys import Namespace
from llutil.ledgers.protocol import Record

__all__ = ["RecordZnode", "ZnodePaths", "session_name"]

_LEASED_MARK, _SESSION_MARK, _ESCAPE_MARK = "=", "@", "%"
# An earlier version wrote a count behind the session. Its nodes have to be seen, to be refused.
_SESSION_RECORD = re.compile(
    r"@(?P<word>.+):(?P<session>[0-9a-f]{16}(\.\d+)?):(?P<sequence>\d{10})", re.ASCII | re.DOTALL
)


def session_name(session_id: int) -> str:
    """A session's id as it is written in names."""
    return f"{session_id & (1 << 64) - 1:016x}"


@dataclass(frozen=True, slots=True)
class RecordZnode:
    """A record's znode in a folder, as its name tells it.

    ``session`` is the session's id. It is empty if the record belongs to a granted lease, or to
    none.
    """

    path: str
    key: str
    session: str = ""
    sequence: int = -1


@dataclass(frozen=True, slots=True)
class ZnodePaths:
    """The paths of the keys of one namespace. They are relative to the chroot."""

    namespace: Namespace

    @property
    def leases_folder(self) -> str:
        """The folder of the granted leases."""
        return self.namespace.prefix + "-"

    def lease(self, name: str) -> str:
        """A granted lease's znode."""
        return f"{self.leases_folder}/{name}"

    def folder(self, folder: str) -> str:
        """The znode of a folder of keys. "" is the top folder, which contains all others."""
        words = [word for word in folder.split("/") if word]
        marked = [
            _ESCAPE_MARK + word if word[0] in (_LEASED_MARK, _SESSION_MARK, _ESCAPE_MARK) else word
            for word in words
        ]
        return "/".join([self.namespace.prefix[:-1], *marked])

    def parent(self, scope: str) -> str:
        """The folder of keys that contains the records of ``scope``; ``scope`` itself if it is a
        folder.
        """
        return scope if scope.endswith("/") else scope.rpartition("/")[0] + "/"

    def leased_record(self, key: str) -> str:
        """The znode of a record that belongs to a granted lease."""
        return f"{self.folder(self.parent(key))}/{_LEASED_MARK}{key.rpartition('/')[2]}"

    def session_record_prefix(self, key: str, session: str) -> str:
        """The beginning of the path of a session's record. ZooKeeper adds the sequence number."""
        return f"{self.folder(self.parent(key))}/{_SESSION_MARK}{key.rpartition('/')[2]}:{session}:"

    def record(self, record: Record) -> str:
        """The znode of a record that was read or written."""
        if record.lease.startswith("lease-"):
            return self.leased_record(record.key)
        return f"{self.session_record_prefix(record.key, record.lease)}{record.created:010}"

    def record_znode(self, folder: str, name: str) -> RecordZnode | None:
        """The record's znode that is called ``name`` in a folder of keys; None if it is not a
        record of ours.
        """
        prefix = folder.lstrip("/")
        path = f"{self.folder(folder)}/{name}"
        if name.startswith(_LEASED_MARK) and len(name) > 1:
            return RecordZnode(path, prefix + name[1:])
        if match := _SESSION_RECORD.fullmatch(name):
            return RecordZnode(
                path, prefix + match["word"], match["session"], int(match["sequence"])
            )
        return None

    def record_znodes(self, folder: str, names: Iterable[str]) -> list[RecordZnode]:
        """The znodes with these names. If two sessions have a record of one key, only the older
        one.
        """
        found: dict[str, RecordZnode] = {}
        for name in names:
            znode = self.record_znode(folder, name)
            if znode is not None:
                other = found.get(znode.key)
                if other is None or znode.sequence < other.sequence:
                    found[znode.key] = znode
        return list(found.values())

    def subfolder(self, folder: str, name: str) -> str | None:
        """The folder of keys that the child znode ``name`` stands for; None if it is a record."""
        if name.startswith((_LEASED_MARK, _SESSION_MARK)) or name == "-":
            return None
        return f"{folder.lstrip('/')}{name.removeprefix(_ESCAPE_MARK)}/"
