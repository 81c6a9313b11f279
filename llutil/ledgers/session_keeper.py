"""The thread that keeps a session, whatever the store: ``SessionKeeper``, and when a session counts
as suspended or lost.

A keeper renews its session every third of the ttl, and beside it the long leases that the session
granted or adopted. From the *sending* of the last renewal that was answered it knows until when the
session lives for certain; after that the session is suspended, until the store answers. Only the
store can say that it is lost. Each store's own keeper says how a session and a lease are renewed
there, and what else its thread does meanwhile.

One thread a keeper, ended by ``stop``. This module may import nothing but the standard library, and
the errors and values of this room; it knows no store.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llutil.ledgers.errors import LedgerClosed, LedgerError, SessionLost
from llutil.ledgers.protocol import SessionState

__all__ = ["RENEWAL", "Renewal", "SessionKeeper"]

_log = logging.getLogger(__name__)

RENEWAL = 4.0
"""Seconds that one renewal may take, tries again included, whatever the ttl."""
_PAUSE = 0.25  # seconds from a failed renewal to the next


@dataclass(frozen=True, slots=True)
class Renewal:
    """That something was renewed: it lives for ``ttl`` seconds from ``sent`` (``time.monotonic()``)
    or longer.
    """

    sent: float
    ttl: float

    @property
    def until(self) -> float:
        """``time.monotonic()`` until when it lives for certain."""
        return self.sent + self.ttl

    @property
    def due(self) -> float:
        """``time.monotonic()`` when it should be renewed again."""
        return self.sent + self.ttl / 3


class SessionKeeper(ABC):
    """Keeps the session ``name`` on ``store``; both stand in logs. ``on_change`` is called when its
    state changes.

    A subclass calls ``start`` when it is ready for its own methods to be called, from the keeper's
    thread.
    """

    def __init__(
        self, name: str, store: object, renewal: Renewal, on_change: Callable[[], None]
    ) -> None:
        self._name = name
        self._store = store
        self._on_change = on_change
        self._changed = threading.Condition()
        """Guards changes to all below; notified when the thread has something new to do."""
        self._renewal = renewal
        self._session_due = renewal.due
        self._beside: dict[str, float] = {}
        """The leases kept beside the session, and when each is to be renewed."""
        self._over = False
        self._stopping = False
        self._told = SessionState.CONNECTED
        self._trouble = ""
        """Why the last renewal of the session failed, if it did."""
        self._thread = threading.Thread(target=self._run, name="llutil-lease", daemon=True)

    # -- what a store's own keeper says

    @abstractmethod
    def _renew_session(self, *, deadline: float) -> Renewal:
        """Renew the session. :raises SessionLost: the store says that it is over."""

    @abstractmethod
    def _renew_lease(self, name: str, *, deadline: float) -> Renewal | None:
        """Renew a lease; None if the store says that it is over. :raises SessionLost: the session
        is.
        """

    def _errand(self) -> Callable[[], None] | None:
        """Something else for the thread to do now, if there is; asked for with ``_changed``
        held.
        """
        return None

    # -- what its owner sees and does

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    @property
    def renewal(self) -> Renewal:
        """The last renewal of the session that succeeded."""
        return self._renewal

    @property
    def state(self) -> SessionState:
        """The session's state now."""
        if self._over:
            return SessionState.LOST
        alive = time.monotonic() < self._renewal.until
        return SessionState.CONNECTED if alive else SessionState.SUSPENDED

    @property
    def is_alive(self) -> bool:
        """Whether the thread still renews."""
        return self._thread.is_alive()

    def add(self, name: str, renewal: Renewal) -> None:
        """Keep this lease too."""
        with self._changed:
            self._beside[name] = renewal.due
            self._changed.notify()

    def keeps(self, name: str) -> bool:
        """Whether this lease is among those kept beside the session."""
        with self._changed:
            return name in self._beside

    def hasten(self) -> None:
        """The store may be back: if the session is suspended, renew it now."""
        with self._changed:
            if self._told is SessionState.SUSPENDED and not self._over:
                self._session_due = time.monotonic()
            self._changed.notify()

    def lose(self, why: str) -> None:
        """The store has said that the session is over."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._tell(why)

    def finish(self) -> None:
        """Its owner has ended the session."""
        with self._changed:
            self._over = True
            self._told = SessionState.LOST
            self._changed.notify()
        self._on_change()

    def stop(self, *, deadline: float) -> None:
        """End the thread; renew nothing more. A renewal on its way is waited for until
        ``deadline``.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    # -- the thread

    def _tell(self, why: str) -> None:
        with self._changed:
            state = self.state
            if state is self._told:
                return
            self._told = state
        if state is SessionState.CONNECTED:
            _log.info("session %s on %s is connected again", self._name, self._store)
        else:
            _log.warning("session %s on %s is %s: %s", self._name, self._store, state, why)
        self._on_change()

    def _run(self) -> None:
        try:
            while (act := self._wait()) is not None:
                self._tell(
                    self._trouble or "this process was held up, and did not renew it in time"
                )
                try:
                    act()
                except SessionLost as error:
                    self.lose(str(error))
        except LedgerClosed:
            return
        except Exception:  # noqa: BLE001 - the thread's edge
            _log.exception("session %s is not renewed any more", self._name)
            self.lose("this side broke down")  # it will be over: better now than suspended for ever

    def _wait(self) -> Callable[[], None] | None:
        """Wait until there is something to do, and say what; None when there is nothing more."""
        with self._changed:
            while not (self._stopping or self._over):
                due, name = min(
                    ((due, name) for name, due in self._beside.items()), default=(float("inf"), "")
                )
                left = min(due, self._session_due) - time.monotonic()
                if left <= 0:
                    return (
                        self._keep_session
                        if self._session_due <= due
                        else partial(self._keep, name)
                    )
                errand = self._errand()
                if errand is not None:
                    return errand
                self._changed.wait(left)
        return None

    def _limit(self) -> float:
        """The deadline of a renewal that begins now."""
        now = time.monotonic()
        deadline = now + min(RENEWAL, self._renewal.ttl / 3)
        until = self._renewal.until
        # Be back when there is a suspension to tell of.
        return min(deadline, until) if now < until else deadline

    def _keep_session(self) -> None:
        try:
            renewal = self._renew_session(deadline=self._limit())
        except (LedgerClosed, SessionLost):
            raise
        except LedgerError as error:
            with self._changed:
                self._trouble = str(error)
                # Again soon, but only if that has a chance.
                again = _PAUSE if error.retryable else self._renewal.ttl / 3
                self._session_due = time.monotonic() + again
            self._tell(self._trouble)
        else:
            with self._changed:
                before, self._renewal = self._renewal, renewal
                self._session_due = renewal.due
                self._trouble = ""
                if time.monotonic() >= before.until:  # somebody may have seen that, told or not
                    self._told = SessionState.SUSPENDED
            self._tell("")

    def _keep(self, name: str) -> None:
        """Renew a lease that is kept beside the session: there is much time, so one that fails
        waits for its next turn.
        """
        with self._changed:
            self._beside[name] = time.monotonic() + self._renewal.ttl / 3
        try:
            renewal = self._renew_lease(name, deadline=self._limit())
        except (LedgerClosed, SessionLost):
            raise
        except LedgerError as error:
            _log.debug("lease %s on %s is renewed later: %s", name, self._store, error)
            return
        with self._changed:
            if renewal is not None:
                self._beside[name] = renewal.due
                return
            del self._beside[name]
        _log.warning("%s says that lease %s is over", self._store, name)
