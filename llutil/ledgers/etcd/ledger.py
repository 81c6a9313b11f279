"""``EtcdLedger``: a ledger on etcd's v3 API.

The modules of this folder: ``channel`` is one gRPC channel to one endpoint. ``connection`` makes
calls over it, with retries and a token. ``grpc_errors`` says what an error means. ``messages``
converts our values to etcd's messages and back. ``leases`` and ``session`` keep a node alive and
write for it. ``watches`` and ``watch_state`` follow changes.

Threads: one for each open session, and one for all watches (gRPC adds one of its own).

Importing this module imports etcd3 and grpc.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from llutil.ledgers.etcd import messages
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.connection import Connection
from llutil.ledgers.etcd.leases import revoke
from llutil.ledgers.etcd.session import EtcdSession, open_session
from llutil.ledgers.etcd.watches import EtcdWatch, EtcdWatchThread
from llutil.ledgers.keys import Namespace, check_scope
from llutil.ledgers.protocol import View
from llutil.time_budgets import LEDGER_CLOSED

__all__ = ["EtcdLedger"]

_log = logging.getLogger(__name__)


class EtcdLedger:
    """``llutil.ledgers.Ledger`` on etcd. Nothing is sent before the first call.

    ``on_change`` is called from this ledger's threads; ``llutil.ledgers.protocol`` says what it may
    do.

    :raises ConfigError: the TLS files of ``config`` cannot be used.
    """

    def __init__(self, config: EtcdConfig, on_change: Callable[[], None]) -> None:
        self._connection = Connection(config)
        self._namespace = Namespace(config.namespace)
        self._callback = on_change
        self._watches = EtcdWatchThread(self._connection, self._namespace, self._on_change)
        self._lock = threading.Lock()
        """Guards ``_sessions``."""
        self._sessions: list[EtcdSession] = []

    def __repr__(self) -> str:
        return f"<ledger {self._namespace.path!r} on {self._connection.config}>"

    def _on_change(self) -> None:
        if self._connection.closing.is_set():
            return
        try:
            self._callback()
        except Exception:  # noqa: BLE001 - the callback is another's
            _log.exception("the callback for changes of %r failed", self)

    def open_session(self, ttl: float, *, deadline: float) -> EtcdSession:
        """Start a session of ``ttl`` whole seconds."""
        session = open_session(
            self._connection, self._namespace, ttl, self._on_change, deadline=deadline
        )
        with self._lock:
            self._sessions = [one for one in self._sessions if one.is_renewed]
            self._sessions.append(session)
        return session

    def read(self, scope: str, *, deadline: float) -> View:
        """The present state of ``scope``, confirmed by a quorum of etcd."""
        request = messages.read(self._namespace, check_scope(scope))
        reply = self._connection.call(
            f"read {scope!r}", lambda channel: channel.kv.Range, request, deadline=deadline
        ).reply
        return messages.to_view(self._namespace, scope, reply.kvs, reply.header.revision)

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> EtcdWatch:
        """Watch ``scope`` from ``since`` on; from its present state if ``since`` is None."""
        check_scope(scope)
        return self._watches.add(
            scope, self.read(scope, deadline=deadline) if since is None else since
        )

    def end_lease(self, lease: str, *, deadline: float) -> None:
        """Revoke a lease by its name."""
        revoke(self._connection, messages.lease_id(lease), deadline=deadline)

    def close(self) -> None:
        """End every thread, watch and connection. In a forked child this does nothing, because they
        belong to the parent.
        """
        if not self._connection.close():
            return
        deadline = time.monotonic() + LEDGER_CLOSED
        with self._lock:
            sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.abandon(deadline=deadline)
        self._watches.close(deadline=deadline)
