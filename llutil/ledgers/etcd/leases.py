"""Leases in etcd, and the thread that keeps them: ``Keeper``.

A keeper renews one session's lease every third of its ttl, and beside it the long leases that the session
granted or adopted. From the sending of the last renewal that succeeded it knows until when the session
lives for certain; after that it is suspended, and stays so until etcd answers. Only etcd can say that it is
lost, and is asked twice: a member that just became leader may not yet know a lease that was granted before.

One thread a keeper, ended by ``stop``. Of ours this module imports what lies in this folder.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from llutil.ledgers.errors import LedgerClosed, LedgerError, LedgerUnavailable
from llutil.ledgers.etcd.connection import Connection, LeaseMissing, LeasePresent
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.etcd.messages import lease_name
from llutil.ledgers.keys import Namespace
from llutil.ledgers.protocol import SessionState

__all__ = ["Keeper", "Lease", "grant", "renew", "revoke"]

_log = logging.getLogger(__name__)

_RENEWAL = 4.0  # seconds that one renewal may take, retries included, whatever the ttl
_PAUSE = 0.25  # seconds from a failed renewal to the next


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was when last renewed: ``ttl`` seconds from ``sent`` (``time.monotonic()``) or longer."""

    number: int
    ttl: float
    sent: float

    @property
    def until(self) -> float:
        """``time.monotonic()`` until when it lives for certain."""
        return self.sent + self.ttl


def renew(connection: Connection, number: int, *, deadline: float) -> Lease | None:
    """Renew a lease; None if etcd says that it is over.

    :raises LedgerUnavailable, LedgerRefused: as ``Connection.call``.
    """
    what = f"renew lease {lease_name(number)}"
    request = etcdrpc.LeaseKeepAliveRequest(ID=number)
    answer = connection.call(what, lambda line: line.renew, request, deadline=deadline)
    return Lease(number, answer.reply.TTL, answer.sent) if answer.reply.TTL > 0 else None


def grant(connection: Connection, ttl: int, *, deadline: float) -> Lease:
    """A new lease of ``ttl`` seconds; etcd may make it longer.

    We choose its number, so that a second attempt finds what a doubtful first one granted.
    """
    number = secrets.randbits(62) + 1
    what = f"grant a lease of {ttl} s"
    request = etcdrpc.LeaseGrantRequest(TTL=ttl, ID=number)
    try:
        answer = connection.call(
            what, lambda line: line.lease.LeaseGrant, request, deadline=deadline
        )
    except LeasePresent:
        lease = renew(connection, number, deadline=deadline)
        if lease is None:
            raise LedgerUnavailable(
                f"{what}: etcd answered after more than {ttl} s, when the lease was over already; "
                "it is overloaded or was cut off"
            ) from None
        return lease
    return Lease(number, answer.reply.TTL, answer.sent)


def revoke(connection: Connection, number: int, *, deadline: float) -> None:
    """End a lease, and all records that hang on it. One that is over already is fine."""
    what = f"revoke lease {lease_name(number)}"
    request = etcdrpc.LeaseRevokeRequest(ID=number)
    try:
        connection.call(what, lambda line: line.lease.LeaseRevoke, request, deadline=deadline)
    except LeaseMissing:
        _log.debug("%s: it was over already", what)


class Keeper:
    """Keeps ``lease``, a session's, and others beside it; calls ``on_change`` when the session's state changes."""

    def __init__(
        self,
        connection: Connection,
        namespace: Namespace,
        lease: Lease,
        on_change: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._on_change = on_change
        self._changed = threading.Condition()
        """Guards changes to all below; notified when the thread has something new to do."""
        self._session = lease
        self._beside: dict[int, Lease] = {}
        self._due: dict[int, float] = {lease.number: lease.sent + lease.ttl / 3}
        self._over = False
        self._stopping = False
        self._told = SessionState.CONNECTED
        self._trouble = ""
        """Why the last renewal failed, if it did."""
        self._thread = threading.Thread(target=self._run, name="llutil-lease", daemon=True)
        self._thread.start()

    @property
    def session(self) -> Lease:
        """The session's lease as it was last renewed."""
        return self._session

    @property
    def state(self) -> SessionState:
        """The session's state now."""
        if self._over:
            return SessionState.LOST
        alive = time.monotonic() < self._session.until
        return SessionState.CONNECTED if alive else SessionState.SUSPENDED

    @property
    def is_alive(self) -> bool:
        """Whether the thread still renews."""
        return self._thread.is_alive()

    def add(self, lease: Lease) -> None:
        """Keep this one too."""
        with self._changed:
            self._beside[lease.number] = lease
            self._due[lease.number] = lease.sent + lease.ttl / 3
            self._changed.notify()

    def keeps(self, number: int) -> bool:
        """Whether this lease is among those kept beside the session's."""
        with self._changed:
            return number in self._beside

    def lose(self, why: str) -> None:
        """etcd has said that the session is over."""
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
        """End the thread; renew nothing more. A renewal on its way is waited for until ``deadline``."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _tell(self, why: str) -> None:
        with self._changed:
            state = self.state
            if state is self._told:
                return
            self._told = state
        name = lease_name(self._session.number)
        if state is SessionState.CONNECTED:
            _log.info("session %s on %s is connected again", name, self._connection.config)
        else:
            _log.warning("session %s on %s is %s: %s", name, self._connection.config, state, why)
        self._on_change()

    def _run(self) -> None:
        try:
            while (number := self._wait()) is not None:
                self._tell(
                    self._trouble or "this process was held up, and did not renew it in time"
                )
                self._renew(number)
        except LedgerClosed:
            return
        except Exception:  # noqa: BLE001 - the thread's edge
            _log.exception("session %s is not renewed any more", lease_name(self._session.number))
            self.lose("this side broke down")  # it will be over: better now than suspended for ever

    def _wait(self) -> int | None:
        """Wait until a lease is due, and say which; None when there is nothing more to do."""
        with self._changed:
            while not (self._stopping or self._over):
                number = min(self._due, key=self._due.__getitem__)
                left = self._due[number] - time.monotonic()
                if left <= 0:
                    return number
                self._changed.wait(left)
        return None

    def _renew(self, number: int) -> None:
        now = time.monotonic()
        deadline = now + min(_RENEWAL, self._session.ttl / 3)
        if now < self._session.until:  # be back when there is a suspension to tell of
            deadline = min(deadline, self._session.until)
        try:
            lease = renew(self._connection, number, deadline=deadline)
            if lease is None:
                lease = self._ask_again(number)
        except LedgerClosed:
            raise
        except LedgerError as error:
            self._failed(number, error)
        else:
            self._renewed(number, lease)

    def _failed(self, number: int, error: LedgerError) -> None:
        """Try again soon, but only with what is urgent and has a chance: the rest waits for its next turn."""
        urgent = number == self._session.number and error.retryable
        with self._changed:
            self._trouble = str(error)
            self._due[number] = time.monotonic() + (_PAUSE if urgent else self._session.ttl / 3)
        self._tell(self._trouble)

    def _renewed(self, number: int, lease: Lease | None) -> None:
        if number == self._session.number:
            if lease is None:
                self.lose("etcd says that its lease is over")
                return
            with self._changed:
                before, self._session = self._session, lease
                self._trouble = ""
                self._due[number] = lease.sent + lease.ttl / 3
                if time.monotonic() >= before.until:  # somebody may have seen that, told or not
                    self._told = SessionState.SUSPENDED
            self._tell("")
            return
        with self._changed:
            if lease is not None:
                self._beside[number] = lease
                self._due[number] = lease.sent + lease.ttl / 3
                return
            del self._beside[number], self._due[number]
        _log.warning("%s says that lease %s is over", self._connection.config, lease_name(number))

    def _ask_again(self, number: int) -> Lease | None:
        """A second opinion: after a read that a quorum stands for, the member that answers is up to date."""
        deadline = time.monotonic() + _RENEWAL
        key = self._namespace.prefix.encode()  # a user may be allowed to read nothing else
        request = etcdrpc.RangeRequest(key=key, count_only=True)
        self._connection.call("read", lambda line: line.kv.Range, request, deadline=deadline)
        return renew(self._connection, number, deadline=deadline)
