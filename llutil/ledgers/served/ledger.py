"""``ServedLedger``: a ledger that a node serves, for all nodes of the job, the serving one too.

Threads: one for the connection, and one for each open session. This module may import
``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from llutil.ledgers.errors import LedgerRefused
from llutil.ledgers.keys import check_scope
from llutil.ledgers.protocol import View
from llutil.ledgers.served import messages, session
from llutil.ledgers.served.config import ServedConfig
from llutil.ledgers.served.connection import Connection
from llutil.ledgers.served.messages import Change
from llutil.ledgers.served.session import ServedSession
from llutil.ledgers.served.watches import ServedWatch, Watches
from llutil.time_budgets import LEDGER_CLOSED

__all__ = ["ServedLedger"]

_log = logging.getLogger(__name__)


class ServedLedger:
    """``llutil.ledgers.Ledger`` at a server. Nothing is sent before the first call.

    ``on_change`` is called from this ledger's threads; ``llutil.ledgers.protocol`` says what it may
    do.
    """

    def __init__(self, config: ServedConfig, on_change: Callable[[], None]) -> None:
        self._connection = Connection(config, self)
        self._callback = on_change
        self._watches = Watches(self._connection, self._check_watch)
        self._lock = threading.Lock()
        """Guards ``_sessions``."""
        self._sessions: list[ServedSession] = []

    def __repr__(self) -> str:
        return f"<ledger {self._connection.config.namespace!r} on {self._connection.config}>"

    def open_session(self, ttl: float, *, deadline: float) -> ServedSession:
        """Start a session of ``ttl`` seconds."""
        opened = session.open_session(self._connection, ttl, self._on_change, deadline=deadline)
        with self._lock:
            self._sessions = [one for one in self._sessions if one.is_renewed]
            self._sessions.append(opened)
        return opened

    def read(self, scope: str, *, deadline: float) -> View:
        """The present state of ``scope``."""
        call = messages.Read(check_scope(scope))
        view: View = self._connection.call(f"read {scope!r}", call, View, deadline=deadline).result
        return view

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> ServedWatch:
        """Watch ``scope`` from ``since`` on; from its present state if ``since`` is None."""
        check_scope(scope)
        self._connection.check()
        return self._watches.add(scope, since, deadline=deadline)

    def end_lease(self, lease: str, *, deadline: float) -> None:
        """End a session or lease by its name."""
        call = messages.EndLease(lease)
        self._connection.call(f"end lease {lease}", call, None, deadline=deadline)

    def close(self) -> None:
        """End every thread, watch and connection. In a forked child this does nothing, because they
        belong to the parent.
        """
        if not self._connection.close():
            return
        deadline = time.monotonic() + LEDGER_CLOSED
        with self._lock:
            sessions, self._sessions = self._sessions, []
        for one in sessions:
            one.abandon(deadline=deadline)
        self._connection.join(deadline)

    # What the connection tells.

    def on_connected(self) -> None:
        """The server is reached, perhaps again."""
        self._watches.resume()
        for keeper in self._keepers():
            keeper.renew_if_suspended()

    def on_new_server(self, why: str) -> None:
        """Another ledger is in its place: what was in this one is over."""
        for keeper in self._keepers():
            keeper.mark_lost(why)
        self._on_change()

    def on_changes(self, changes: tuple[Change, ...]) -> None:
        """The server tells of changes."""
        if self._watches.apply(changes):
            self._on_change()

    def on_gone(self) -> None:
        """The server has gone, or refuses this client, or does so no longer."""
        self._on_change()

    def _keepers(self) -> list[session.Keeper]:
        with self._lock:
            return [one.keeper for one in self._sessions]

    def _on_change(self) -> None:
        if self._connection.closing.is_set():
            return
        try:
            self._callback()
        except Exception:  # noqa: BLE001 - the callback is another's
            _log.exception("the callback for changes of %r failed", self)

    def _check_watch(self) -> None:
        self._connection.check()
        if self._connection.refusal:
            raise LedgerRefused(self._connection.refusal)
