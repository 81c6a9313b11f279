"""Where a ledger's records and folders lie among ZooKeeper's nodes. Pure functions on text.

A record's node has a mark in front of its name, so that a record ``a`` and a folder ``a`` are two
nodes, and so that what others put beside them is known for a stranger:

::

    /chroot/namespace/-/log/=seal                                a record that goes with a granted lease
    /chroot/namespace/-/members/@ann:00000a3b4c5d6e7f.0:0000000042 one that goes with a session (ephemeral, sequential)
    /chroot/namespace/-/-/lease-0a1b2c...                        a granted lease; the word "-" is legal in no key

The session's id in the name tells whose a record is without reading it, and lets a node find what
it created although the answer was lost. The number after it is how often the session has left
before, so that no two records ever have the same name; the sequence, which ZooKeeper counts from 0
again in a folder that was removed and made again, tells the order of arrival. A folder whose name
begins with a mark gets a ``%``.

This module may import nothing but the standard library and ``llutil.ledgers``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llutil.ledgers.keys import Namespace
from llutil.ledgers.protocol import Record

__all__ = ["RecordZnode", "ZnodePaths", "session_name"]

_PLAIN, _LEASED, _ESCAPE = "=", "@", "%"
_LEASED_NAME = re.compile(
    r"@(?P<word>.+):(?P<session>[0-9a-f]{16}\.\d+):(?P<sequence>\d{10})", re.ASCII | re.DOTALL
)


def session_name(session: int) -> str:
    """A session's id as it stands in names."""
    return f"{session & (1 << 64) - 1:016x}"


@dataclass(frozen=True, slots=True)
class RecordZnode:
    """A record's node in a folder, as its name tells it.

    ``session`` is the session's id and how often it had left before; empty if the record goes with
    a granted lease.
    """

    path: str
    key: str
    session: str = ""
    sequence: int = -1


@dataclass(frozen=True, slots=True)
class ZnodePaths:
    """The places of the keys of one namespace. Paths are relative to the chroot."""

    namespace: Namespace

    @property
    def leases(self) -> str:
        """The folder of the granted leases."""
        return self.namespace.prefix + "-"

    def lease(self, name: str) -> str:
        """A granted lease's node."""
        return f"{self.leases}/{name}"

    def folder(self, folder: str) -> str:
        """The node of a folder of keys ("" is the one that all others are in)."""
        words = [word for word in folder.split("/") if word]
        marked = [
            _ESCAPE + word if word[0] in (_PLAIN, _LEASED, _ESCAPE) else word for word in words
        ]
        return "/".join([self.namespace.prefix[:-1], *marked])

    def parent(self, scope: str) -> str:
        """The folder (of keys) in which the records of ``scope`` lie: itself, if it is one."""
        return scope if scope.endswith("/") else scope.rpartition("/")[0] + "/"

    def plain(self, key: str) -> str:
        """The node of a record that goes with a granted lease."""
        return f"{self.folder(self.parent(key))}/{_PLAIN}{key.rpartition('/')[2]}"

    def stem(self, key: str, session: str) -> str:
        """The beginning of the path of a session's record; ZooKeeper adds the sequence."""
        return f"{self.folder(self.parent(key))}/{_LEASED}{key.rpartition('/')[2]}:{session}:"

    def path(self, record: Record) -> str:
        """The node of a record that was read or written."""
        if record.lease.startswith("lease-"):
            return self.plain(record.key)
        return f"{self.stem(record.key, record.lease)}{record.created:010}"

    def node(self, folder: str, name: str) -> RecordZnode | None:
        """The record's node that is called ``name`` in a folder of keys; None if it is none of
        ours.
        """
        prefix = folder.lstrip("/")
        path = f"{self.folder(folder)}/{name}"
        if name.startswith(_PLAIN) and len(name) > 1:
            return RecordZnode(path, prefix + name[1:])
        if match := _LEASED_NAME.fullmatch(name):
            return RecordZnode(
                path, prefix + match["word"], match["session"], int(match["sequence"])
            )
        return None

    def nodes(self, folder: str, names: Iterable[str]) -> list[RecordZnode]:
        """The nodes of ``names``: of two sessions' records of one key the older one alone."""
        found: dict[str, RecordZnode] = {}
        for name in names:
            node = self.node(folder, name)
            if node is not None:
                other = found.get(node.key)
                if other is None or node.sequence < other.sequence:
                    found[node.key] = node
        return list(found.values())

    def subfolder(self, folder: str, name: str) -> str | None:
        """The folder of keys that a child node called ``name`` stands for; None if it is a
        record's.
        """
        if name.startswith((_PLAIN, _LEASED)) or name == "-":
            return None
        return f"{folder.lstrip('/')}{name.removeprefix(_ESCAPE)}/"
