"""A ledger that can be cut off from its store for a while, on purpose; see ``llutil.chaos``.

It is put around the ledger of any store. While it is cut off, calls get no answer, watches show
what they showed last, and sessions are not renewed: if that lasts longer than a lease, the other
nodes lose this one, as they do when a network breaks. One thread waits for the order and for the
end of the cut; ``close`` ends it.

This module may import the standard library, ``llutil.events.cut_order`` and this room.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from llutil.events.cut_order import CutOrder
from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.open_ledger import Opener
from llutil.ledgers.protocol import (
    CreateResult,
    Joined,
    Ledger,
    Record,
    Session,
    SessionState,
    View,
    Watch,
)
from llutil.time_budgets import LEDGER_CLOSED

__all__ = ["CutLedger", "cut_ledger_opener"]

_log = logging.getLogger(__name__)

# Seconds of one wait for an order, so that ``close`` need not wait longer.
_WAIT = 0.02


def cut_ledger_opener(opener: Opener, order: CutOrder) -> Opener:
    """Opens what ``opener`` opens, and cuts it off when ``order`` is given."""
    return lambda on_change: CutLedger(opener, on_change, order)


class _Cut:
    """Whether the store is out of reach now."""

    def __init__(self) -> None:
        self.until = 0.0
        """``time.monotonic()`` at its end."""
        self.closed = threading.Event()

    @property
    def is_on(self) -> bool:
        return time.monotonic() < self.until and not self.closed.is_set()

    def wait(self, what: str, deadline: float) -> None:
        """Wait for the end of the cut.

        :raises LedgerUnavailable: it does not come by ``deadline``.
        """
        while self.is_on:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LedgerUnavailable(f"{what}: this node is cut off from its store, on purpose")
            self.closed.wait(min(left, self.until - time.monotonic()))


class CutLedger:
    """``llutil.ledgers.Ledger`` on another one."""

    def __init__(self, opener: Opener, on_change: Callable[[], None], order: CutOrder) -> None:
        self._ledger: Ledger = opener(on_change)
        self._on_change = on_change
        self._order = order
        self._cut = _Cut()
        self._sessions: list[Session] = []
        self._thread = threading.Thread(target=self._run, name="llutil-cut", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return repr(self._ledger)

    def open_session(self, ttl: float, *, deadline: float) -> Session:
        """Start a session of ``ttl`` seconds."""
        self._cut.wait("open a session", deadline)
        session = self._ledger.open_session(ttl, deadline=deadline)
        self._sessions = [one for one in self._sessions if one.state is not SessionState.LOST]
        self._sessions.append(session)
        return _CutSession(session, self._cut)

    def read(self, scope: str, *, deadline: float) -> View:
        """The present state of ``scope``."""
        self._cut.wait(f"read {scope!r}", deadline)
        return self._ledger.read(scope, deadline=deadline)

    def watch(self, scope: str, *, since: View | None = None, deadline: float) -> Watch:
        """Watch ``scope``."""
        self._cut.wait(f"watch {scope!r}", deadline)
        return _CutWatch(self._ledger.watch(scope, since=since, deadline=deadline), self._cut)

    def end_lease(self, lease: str, *, deadline: float) -> None:
        """End a session or a lease by its name."""
        self._cut.wait("end a lease", deadline)
        self._ledger.end_lease(lease, deadline=deadline)

    def close(self) -> None:
        """End every thread, watch and connection."""
        self._cut.closed.set()
        self._ledger.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(LEDGER_CLOSED)

    def _run(self) -> None:
        closed = self._cut.closed
        while not closed.is_set():
            seconds = self._order.take(time.monotonic() + _WAIT)
            if not seconds:
                continue
            _log.warning("CHAOS: this node is cut off from its store for %g s", seconds)
            self._cut.until = time.monotonic() + seconds
            for session in self._sessions:
                session.cut_off(self._cut.until)
            if not closed.wait(seconds):
                _log.warning("CHAOS: this node reaches its store again")
                self._on_change()  # what the watches show may have changed meanwhile


class _CutWatch:
    """``llutil.ledgers.Watch``."""

    def __init__(self, watch: Watch, cut: _Cut) -> None:
        self._watch, self._cut = watch, cut
        self._shown = watch.view()

    def view(self) -> View:
        """The latest known state."""
        if not self._cut.is_on:
            self._shown = self._watch.view()
        return self._shown

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()


class _CutSession:
    """``llutil.ledgers.Session``."""

    def __init__(self, session: Session, cut: _Cut) -> None:
        self._session, self._cut = session, cut

    @property
    def ttl(self) -> float:
        return self._session.ttl

    @property
    def lease(self) -> str:
        return self._session.lease

    @property
    def renewed_at(self) -> float:
        return self._session.renewed_at

    @property
    def state(self) -> SessionState:
        return self._session.state

    @property
    def gone(self) -> str:
        return self._session.gone

    @property
    def store_name(self) -> str:
        return self._session.store_name

    @property
    def revocation(self) -> LeaseRevocation | None:
        return self._session.revocation

    def cut_off(self, until: float) -> None:
        self._session.cut_off(until)

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        self._cut.wait("join", deadline)
        return self._session.join(folder, name, value, reads=reads, deadline=deadline)

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> CreateResult:
        self._cut.wait(f"create {', '.join(values)}", deadline)
        return self._session.create(values, guard=guard, lease=lease, deadline=deadline)

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        self._cut.wait(f"delete {', '.join(scopes)}", deadline)
        return self._session.delete(*scopes, guard=guard, deadline=deadline)

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        self._cut.wait("grant a lease", deadline)
        return self._session.grant_lease(ttl, deadline=deadline)

    def keep_alive(self, lease: str, *, deadline: float) -> None:
        self._cut.wait("renew a lease", deadline)
        self._session.keep_alive(lease, deadline=deadline)

    def release(self, *, deadline: float) -> None:
        self._cut.wait("end the session", deadline)
        self._session.release(deadline=deadline)
