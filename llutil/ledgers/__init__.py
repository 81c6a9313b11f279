"""The stores that nodes agree through: one small Protocol, and its implementations.

* ``protocol``: what a ledger is: records, sessions, watches. Read this first.
* ``errors``: what can go wrong, and whether a retry can help.
* ``session_keeper``: the thread that renews a session, for every store. ``renewed_session`` is
  what all sessions know from it.
* ``lease_revocation``: how another process ends the session of a node that was killed.
* ``memory``: a ledger inside one process, for jobs of one node, tests, and the server of a served
  ledger.
* ``served``: a ledger that one node of the job serves.
* ``etcd``: a ledger on etcd's v3 API. It needs etcd3 and grpc, so it is imported only when used.
* ``zookeeper``: a ledger on ZooKeeper. It needs kazoo, so it is imported only when used.

Importing this package imports plain Python only.
"""

from llutil.ledgers.errors import (
    LeaseGone,
    LedgerClosed,
    LedgerConflict,
    LedgerError,
    LedgerGone,
    LedgerRefused,
    LedgerUnavailable,
    SessionLost,
)
from llutil.ledgers.protocol import (
    Created,
    CreateResult,
    Exists,
    GuardGone,
    Joined,
    Ledger,
    Record,
    Session,
    SessionState,
    View,
    Watch,
)

__all__ = [
    "CreateResult",
    "Created",
    "Exists",
    "GuardGone",
    "Joined",
    "LeaseGone",
    "Ledger",
    "LedgerClosed",
    "LedgerConflict",
    "LedgerError",
    "LedgerGone",
    "LedgerRefused",
    "LedgerUnavailable",
    "Record",
    "Session",
    "SessionLost",
    "SessionState",
    "View",
    "Watch",
]
