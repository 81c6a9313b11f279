"""A ledger on ZooKeeper: ``ZooKeeperLedger``.

How it is built: ``places`` says which node of ZooKeeper a key is; ``handshake`` opens and ends
sessions without kazoo; ``line`` is one kazoo client with deadlines; ``reading`` reads scopes over
it; ``leases`` are nodes that others sweep once they are over; ``keeping`` and ``session`` keep a
node alive and write for it; ``watches`` follows changes.

Reads and watches have a line of their own beside the session's: so they outlive a session that is
lost, and each begins with a ``sync``, so that it is no older than the moment of the call. Threads:
one for each open session, one for all watches, and three of kazoo's for each line.

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
from llutil.ledgers.zookeeper.lease_znodes import LeaseZnodes
from llutil.ledgers.zookeeper.session import ZooKeeperSession, open_session
from llutil.ledgers.zookeeper.watches import ZooKeeperWatch, ZooKeeperWatches
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths
from llutil.ledgers.zookeeper.znode_reader import ZnodeReader

__all__ = ["ZooKeeperLedger"]

_log = logging.getLogger(__name__)

_END = 5.0  # seconds for threads to end once their connection is closed
_READING = (
    6.0  # seconds of the session that reads; how soon a frozen server is left for another one
)


class ZooKeeperLedger(ProcessOwned):
    """``llutil.ledgers.Ledger`` on ZooKeeper. Nothing is sent before the first call.

    ``on_change`` is called from this ledger's threads; ``llutil.ledgers.protocol`` says what it may
    do. Unlike the Protocol says, ``close`` ends sessions that were not released, if a server is
    there to hear it: kazoo knows no other way to leave.

    :raises ConfigError: the TLS files of ``config`` cannot be used, or its SASL mechanism in this
        installation.
    """

    def __init__(self, config: ZooKeeperConfig, on_change: Callable[[], None]) -> None:
        read_tls(config)
        check_sasl(config)
        super().__init__(config)
        self._config = config
        self._places = ZnodePaths(Namespace(config.namespace))
        self._callback = on_change
        self._watches = ZooKeeperWatches(self._reading, self._places, self._on_change)
        self._lock = threading.Lock()
        """Guards the two below, and closing. Never held during a call."""
        self._line: KazooSession | None = None
        self._sessions: list[ZooKeeperSession] = []

    def __repr__(self) -> str:
        return f"<ledger {self._places.namespace.path!r} on {self._config}>"

    def _on_change(self) -> None:
        if self.closing.is_set():
            return
        try:
            self._callback()
        except Exception:  # noqa: BLE001 - the callback is another's
            _log.exception("the callback for changes of %r failed", self)

    def _reading(self) -> KazooSession:
        """The line for reads and watches, opened when first used."""
        self.check()
        with self._lock:
            self.check()
            if self._line is None:
                self._line = KazooSession(self._config, _READING, lambda: None)
            return self._line

    def open_session(self, ttl: float, *, deadline: float) -> ZooKeeperSession:
        """Start a session of ``ttl`` seconds."""
        self.check()
        _soon_enough("open a session", deadline)
        session = open_session(self._config, self._places, ttl, self._on_change, deadline=deadline)
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
        line = self._reading()
        reader = ZnodeReader(line, self._places, deadline)

        def act(_: bool) -> View:
            reader.sync()
            return reader.view(scope)

        return line.trying(f"read {scope!r}", act, deadline=deadline)

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> ZooKeeperWatch:
        """Watch ``scope`` from ``since`` on, or from what is there now."""
        check_scope(scope)
        self._reading()
        return self._watches.add(
            scope, self.read(scope, deadline=deadline) if since is None else since
        )

    def end_lease(self, lease: str, *, deadline: float) -> None:
        """End a session or a granted lease by its name."""
        self.check()
        if lease.startswith("lease-"):
            lease_znodes.end(LeaseZnodes(self._reading(), self._places), lease, deadline=deadline)
            return
        session, _, password = lease.partition("-")
        if not password:
            raise LedgerRefused(
                f"session {lease} on {self._config} can only be ended by who knows its password"
            )
        number = int.from_bytes(bytes.fromhex(session), signed=True)
        session_handshake.end_session(
            self._config, number, bytes.fromhex(password), deadline=deadline
        )

    def close(self) -> None:
        """End every thread, watch and connection. In a forked child it does nothing: they are the
        parent's.
        """
        if self.inherited:
            return
        deadline = time.monotonic() + _END
        with self._lock:
            self.closing.set()
            sessions, self._sessions = self._sessions, []
            line, self._line = self._line, None
        for session in sessions:
            session.abandon(deadline=deadline)
        if line is not None:
            line.close(deadline=deadline)
        self._watches.close(deadline=deadline)


def _soon_enough(what: str, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise LedgerUnavailable(f"{what}: the deadline had passed; nothing was sent")
