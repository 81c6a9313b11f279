"""``SessionKeeper``: the thread that renews a session, on any store. It also decides when a session
counts as suspended or lost.

A keeper renews its session every third of the ttl. It also renews the long leases that the session
granted or keeps alive. The session certainly lives until one ttl after the *sending* of the last
renewal that was answered. After that the session is suspended until the store answers. Only the
store can say that it is lost. A subclass for each store says how a session and a lease are renewed
there, and what else its thread does in between.

Each keeper has one thread; ``stop`` ends it. This module may import the standard library, and the
errors and values of this room. It knows no store.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llutil.ledgers.errors import LedgerClosed, LedgerError, LedgerUnavailable, SessionLost
from llutil.ledgers.protocol import SessionState

__all__ = ["RENEWAL_TIMEOUT", "Renewal", "SessionKeeper"]

_log = logging.getLogger(__name__)

RENEWAL_TIMEOUT = 4.0
"""Seconds that one renewal may take, retries included, however long the ttl is."""
# Seconds from a failed renewal to the next one.
_RETRY_PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class Renewal:
    """A renewal of a session or lease. It was sent at ``sent`` (``time.monotonic()``), and what was
    renewed lives for at least ``ttl`` seconds from then on.
    """

    sent: float
    ttl: float

    @property
    def valid_until(self) -> float:
        """``time.monotonic()`` until which the session or lease certainly lives."""
        return self.sent + self.ttl

    @property
    def due(self) -> float:
        """``time.monotonic()`` at which it should be renewed again."""
        return self.sent + self.ttl / 3


class SessionKeeper(ABC):
    """Renews the session ``name`` on ``store``. Logs show both. ``on_change`` is called when the
    session's state changes.

    A subclass calls ``start`` when its own methods may be called. They are called in the keeper's
    thread.
    """

    def __init__(
        self, name: str, store: object, renewal: Renewal, on_change: Callable[[], None]
    ) -> None:
        self._name = name
        self._store = store
        self._on_change = on_change
        self._changed = threading.Condition()
        """Guards changes of all attributes below. Notified when the thread has something to do."""
        self._renewal = renewal
        self._session_due = renewal.due
        self._lease_due: dict[str, float] = {}
        """By lease: when it is to be renewed (``time.monotonic()``). These are the leases beside
        the session.
        """
        self._is_over = False
        self._stopping = False
        self._reported_state = SessionState.CONNECTED
        self._cut_until = 0.0
        self._failure_text = ""
        """Why the last renewal of the session failed; empty if it did not."""
        self._thread = threading.Thread(target=self._run, name="llutil-lease", daemon=True)

    # -- what a subclass for a store implements

    @abstractmethod
    def _renew_session(self, *, deadline: float) -> Renewal:
        """Renew the session. :raises SessionLost: the store says that it is over."""

    @abstractmethod
    def _renew_lease(self, name: str, *, deadline: float) -> Renewal | None:
        """Renew a lease; None if the store says that it is over.

        :raises SessionLost: the store says that the session is over.
        """

    def _extra_task(self) -> Callable[[], None] | None:
        """Something else for the thread to do now; None if there is nothing. Called with
        ``_changed`` held.
        """
        return None

    # -- what the session calls

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def renewal(self) -> Renewal:
        """The last successful renewal of the session."""
        return self._renewal

    @property
    def state(self) -> SessionState:
        """The session's state now."""
        if self._is_over:
            return SessionState.LOST
        alive = time.monotonic() < self._renewal.valid_until
        return SessionState.CONNECTED if alive else SessionState.SUSPENDED

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def add_lease(self, name: str, renewal: Renewal) -> None:
        """Renew this lease too, from now on."""
        with self._changed:
            self._lease_due[name] = renewal.due
            self._changed.notify()

    def keeps_lease(self, name: str) -> bool:
        """Whether this lease is renewed beside the session."""
        with self._changed:
            return name in self._lease_due

    def renew_if_suspended(self) -> None:
        """Renew a suspended session now. Called when the store may be back."""
        with self._changed:
            if self._reported_state is SessionState.SUSPENDED and not self._is_over:
                self._session_due = time.monotonic()
            self._changed.notify()

    def mark_lost(self, why: str) -> None:
        """The store has said that the session is over; ``why`` is for the log."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._report_state(why)

    def mark_released(self) -> None:
        """The node has ended the session itself."""
        with self._changed:
            self._is_over = True
            self._reported_state = SessionState.LOST
            self._changed.notify()
        self._on_change()

    def cut_off(self, until: float) -> None:
        """Renew nothing before ``until`` (``time.monotonic()``)."""
        with self._changed:
            self._cut_until = until

    def stop(self, *, deadline: float) -> None:
        """End the thread. If a renewal is in progress, wait for its end until ``deadline``."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    # -- the thread

    def _report_state(self, why: str) -> None:
        with self._changed:
            state = self.state
            if state is self._reported_state:
                return
            self._reported_state = state
        if state is SessionState.CONNECTED:
            _log.info("session %s on %s is connected again", self._name, self._store)
        else:
            _log.warning("session %s on %s is %s: %s", self._name, self._store, state, why)
        self._on_change()

    def _run(self) -> None:
        try:
            while (act := self._wait()) is not None:
                self._report_state(
                    self._failure_text
                    or "this process was stopped or busy, and did not renew it in time"
                )
                try:
                    act()
                except SessionLost as error:
                    self.mark_lost(str(error))
        except LedgerClosed:
            return
        except Exception:  # noqa: BLE001 - the thread's edge
            _log.exception("session %s is not renewed any more", self._name)
            # The session will expire. So it is lost now, and not suspended for ever.
            self.mark_lost("the thread that renews it failed in this process")

    def _wait(self) -> Callable[[], None] | None:
        """Wait until there is something to do, and return it; None when the thread should end."""
        with self._changed:
            while not (self._stopping or self._is_over):
                due, name = min(
                    ((due, name) for name, due in self._lease_due.items()),
                    default=(float("inf"), ""),
                )
                left = min(due, self._session_due) - time.monotonic()
                if left <= 0:
                    return (
                        self._keep_session
                        if self._session_due <= due
                        else partial(self._keep_lease, name)
                    )
                task = self._extra_task()
                if task is not None:
                    return task
                self._changed.wait(left)
        return None

    def _renewal_deadline(self) -> float:
        """The deadline of a renewal that begins now."""
        now = time.monotonic()
        deadline = now + min(RENEWAL_TIMEOUT, self._renewal.ttl / 3)
        until = self._renewal.valid_until
        # The renewal must end in time to report a suspension when it begins.
        return min(deadline, until) if now < until else deadline

    def _check_cut(self) -> None:
        if time.monotonic() < self._cut_until:
            raise LedgerUnavailable("this node is cut off from its store, on purpose")

    def _keep_session(self) -> None:
        try:
            self._check_cut()
            renewal = self._renew_session(deadline=self._renewal_deadline())
        except (LedgerClosed, SessionLost):
            raise
        except LedgerError as error:
            with self._changed:
                self._failure_text = str(error)
                # Retry soon only if a retry can help.
                pause = _RETRY_PAUSE if error.retryable else self._renewal.ttl / 3
                self._session_due = time.monotonic() + pause
            self._report_state(self._failure_text)
        else:
            with self._changed:
                before, self._renewal = self._renewal, renewal
                self._session_due = renewal.due
                self._failure_text = ""
                # Somebody may have read ``state`` as suspended although that was never reported.
                if time.monotonic() >= before.valid_until:
                    self._reported_state = SessionState.SUSPENDED
            self._report_state("")

    def _keep_lease(self, name: str) -> None:
        """Renew a lease that is kept beside the session. Such a lease is long, so after a failure
        it just waits for its next turn.
        """
        with self._changed:
            self._lease_due[name] = time.monotonic() + self._renewal.ttl / 3
        try:
            self._check_cut()
            renewal = self._renew_lease(name, deadline=self._renewal_deadline())
        except (LedgerClosed, SessionLost):
            raise
        except LedgerError as error:
            _log.debug("lease %s on %s is renewed later: %s", name, self._store, error)
            return
        with self._changed:
            if renewal is not None:
                self._lease_due[name] = renewal.due
                return
            del self._lease_due[name]
        _log.warning("%s says that lease %s is over", self._store, name)
