"""``ZooKeeperLedger``: a ledger on ZooKeeper.

The modules of this folder: ``znode_paths`` says which znode a key is. ``session_handshake`` opens
and ends sessions without kazoo. ``kazoo_client`` and ``kazoo_session`` make requests with deadlines
through kazoo. ``znode_reader`` reads scopes. ``znode_transactions``, ``member_znode`` and
``lease_znodes`` write records and leases. ``session_keeper`` and ``session`` keep a node alive and
write for it. ``watches`` follows changes.

Reads and watches use a ZooKeeper session of their own, so they go on when a node's session is lost.
Each read begins with a ``sync``, so it is at least as new as the moment of the call. Threads: one
for each open session, one for all watches, and three of kazoo's for each ZooKeeper session.

Importing this module imports kazoo.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from llutil.ledgers.credentials import read_tls
from llutil.ledgers.errors import LedgerClosed, LedgerRefused, LedgerUnavailable
from llutil.ledgers.keys import Namespace, check_scope
from llutil.ledgers.process_owned import ProcessOwned
from llutil.ledgers.protocol import View
from llutil.ledgers.zookeeper import lease_znodes, session_handshake
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_client import check_sasl
from llutil.ledgers.zookeeper.kazoo_session import KazooSession
from llutil.ledgers.zookeeper.lease_znodes import LeaseFolder
from llutil.ledgers.zookeeper.session import ZooKeeperSession, open_session
from llutil.ledgers.zookeeper.watches import ZooKeeperWatch, ZooKeeperWatchThread
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths
from llutil.ledgers.zookeeper.znode_reader import ZnodeReader
from llutil.time_budgets import LEDGER_CLOSED

__all__ = ["ZooKeeperLedger"]

_log = logging.getLogger(__name__)

# Seconds of the session for reads and watches. It decides how soon kazoo leaves a frozen server.
_READER_TIMEOUT = 6.0


class ZooKeeperLedger(ProcessOwned):
    """``llutil.ledgers.Ledger`` on ZooKeeper. Nothing is sent before the first call.

    ``on_change`` is called from this ledger's threads; ``llutil.ledgers.protocol`` says what it may
    do. One thing differs from the Protocol: ``close`` also ends sessions that were not released, if
    a server is connected. kazoo has no other way to close a connection.

    :raises ConfigError: the TLS files of ``config`` cannot be used, or this installation does not
        have its SASL mechanism.
    """

    def __init__(self, config: ZooKeeperConfig, on_change: Callable[[], None]) -> None:
        read_tls(config)
        check_sasl(config)
        super().__init__(config)
        self._config = config
        self._paths = ZnodePaths(Namespace(config.namespace))
        self._callback = on_change
        self._watches = ZooKeeperWatchThread(self._reader_session, self._paths, self._on_change)
        self._lock = threading.Lock()
        """Guards the two attributes below, and ``closing``. Never held during a call."""
        self._kazoo: KazooSession | None = None
        self._sessions: list[ZooKeeperSession] = []

    def __repr__(self) -> str:
        return f"<ledger {self._paths.namespace.path!r} on {self._config}>"

    def _on_change(self) -> None:
        if self.closing.is_set():
            return
        try:
            self._callback()
        except Exception:  # noqa: BLE001 - the callback is another's
            _log.exception("the callback for changes of %r failed", self)

    def _reader_session(self) -> KazooSession:
        """The ZooKeeper session for reads and watches; opened at its first use."""
        self.check()
        with self._lock:
            self.check()
            if self._kazoo is None:
                self._kazoo = KazooSession(self._config, _READER_TIMEOUT, lambda: None)
            return self._kazoo

    def open_session(self, ttl: float, *, deadline: float) -> ZooKeeperSession:
        """Start a session of ``ttl`` seconds."""
        self.check()
        _check_deadline("open a session", deadline)
        session = open_session(self._config, self._paths, ttl, self._on_change, deadline=deadline)
        with self._lock:
            self._sessions = [one for one in self._sessions if one.is_renewed]
            if not self.closing.is_set():
                self._sessions.append(session)
                return session
        session.abandon(deadline=deadline)
        raise LedgerClosed(f"this ledger on {self._config} is closed")

    def read(self, scope: str, *, deadline: float) -> View:
        """The present state of ``scope``."""
        check_scope(scope)
        kazoo = self._reader_session()
        reader = ZnodeReader(kazoo, self._paths, deadline)

        def act(_: bool) -> View:
            reader.sync()
            return reader.view(scope)

        return kazoo.retry(f"read {scope!r}", act, deadline=deadline)

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> ZooKeeperWatch:
        """Watch ``scope`` from ``since`` on; from its present state if ``since`` is None."""
        check_scope(scope)
        self._reader_session()
        return self._watches.add(
            scope, self.read(scope, deadline=deadline) if since is None else since
        )

    def end_lease(self, lease: str, *, deadline: float) -> None:
        """End a session or a granted lease by its name.

        :raises LedgerRefused: it is a session whose name lacks the password.
        """
        self.check()
        if lease.startswith("lease-"):
            lease_znodes.end(
                LeaseFolder(self._reader_session(), self._paths), lease, deadline=deadline
            )
            return
        session, _, password = lease.partition("-")
        if not password:
            raise LedgerRefused(
                f"session {lease} on {self._config} cannot be ended without its password"
            )
        number = int.from_bytes(bytes.fromhex(session), signed=True)
        session_handshake.end_session(
            self._config, number, bytes.fromhex(password), deadline=deadline
        )

    def close(self) -> None:
        """End every thread, watch and connection. In a forked child this does nothing, because they
        belong to the parent.
        """
        if self.inherited:
            return
        deadline = time.monotonic() + LEDGER_CLOSED
        with self._lock:
            self.closing.set()
            sessions, self._sessions = self._sessions, []
            kazoo, self._kazoo = self._kazoo, None
        for session in sessions:
            session.abandon(deadline=deadline)
        if kazoo is not None:
            kazoo.close(deadline=deadline)
        self._watches.close(deadline=deadline)


def _check_deadline(what: str, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise LedgerUnavailable(f"{what}: the deadline had passed; nothing was sent")
