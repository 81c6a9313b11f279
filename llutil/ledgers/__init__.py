"""The stores that nodes agree through: one small Protocol, and what implements it.

* ``protocol``: what a ledger is; values, sessions, watches. Read this first.
* ``errors``: what can go wrong, and whether trying again can help.
* ``will``: how another process ends the session of a node that was killed.
* ``memory``: a ledger inside one process, for jobs of one node and for tests.
* ``etcd``: a ledger on etcd's v3 API. Needs etcd3 and grpc, so it is imported only when it is used.
* ``zookeeper``: a ledger on ZooKeeper. Needs kazoo, and is imported only when it is used, likewise.

Importing this package imports plain Python only.
"""

from llutil.ledgers.errors import (
    LeaseGone,
    LedgerClosed,
    LedgerConflict,
    LedgerError,
    LedgerRefused,
    LedgerUnavailable,
    SessionLost,
)
from llutil.ledgers.protocol import (
    Created,
    Exists,
    Gone,
    Joined,
    Ledger,
    Outcome,
    Record,
    Session,
    SessionState,
    View,
    Watch,
)

__all__ = [
    "Created",
    "Exists",
    "Gone",
    "Joined",
    "LeaseGone",
    "Ledger",
    "LedgerClosed",
    "LedgerConflict",
    "LedgerError",
    "LedgerRefused",
    "LedgerUnavailable",
    "Outcome",
    "Record",
    "Session",
    "SessionLost",
    "SessionState",
    "View",
    "Watch",
]
