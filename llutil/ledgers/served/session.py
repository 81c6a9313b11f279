"""A session on a served ledger, and the thread that renews it.

This module may import ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llutil.ledgers import session_keeper
from llutil.ledgers.errors import LeaseGone, SessionLost
from llutil.ledgers.keys import check_folder, check_key, check_scope
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import CreateResult, GuardGone, Joined, Record
from llutil.ledgers.renewed_session import RenewedSession
from llutil.ledgers.served import messages, revocation
from llutil.ledgers.served.connection import Connection
from llutil.ledgers.served.messages import Creation
from llutil.ledgers.served.pending_calls import Answer
from llutil.ledgers.session_keeper import Renewal

__all__ = ["Keeper", "ServedSession", "open_session"]


def open_session(
    connection: Connection, ttl: float, on_change: Callable[[], None], *, deadline: float
) -> ServedSession:
    """Start a session of ``ttl`` seconds and renew it."""
    call = messages.OpenSession(ttl)
    answer = connection.call(f"a session of {ttl:g} s", call, str, deadline=deadline)
    renewal = Renewal(answer.sent, ttl)
    return ServedSession(connection, Keeper(connection, answer.result, renewal, on_change))


class Keeper(session_keeper.SessionKeeper):
    """Renews the session ``lease``, and the leases beside it."""

    def __init__(
        self,
        connection: Connection,
        lease: str,
        renewal: Renewal,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(lease, connection.config, renewal, on_change)
        self.lease = lease
        self._connection = connection
        self.start()

    def _renew_session(self, *, deadline: float) -> Renewal:
        call = messages.Renew(self.lease)
        answer = self._connection.call("renew the session", call, float, deadline=deadline)
        return Renewal(answer.sent, answer.result)

    def _renew_lease(self, name: str, *, deadline: float) -> Renewal | None:
        try:
            return _renew_lease(self._connection, self.lease, name, deadline=deadline)
        except LeaseGone:
            return None


def _renew_lease(connection: Connection, session: str, lease: str, *, deadline: float) -> Renewal:
    """Renew a lease beside the session. :raises LeaseGone: it is over."""
    call = messages.KeepAlive(session, lease)
    answer = connection.call(f"renew lease {lease}", call, float, deadline=deadline)
    return Renewal(answer.sent, answer.result)


class ServedSession(RenewedSession):
    """``llutil.ledgers.Session`` on a served ledger. Made by ``open_session``."""

    def __init__(self, connection: Connection, keeper: Keeper) -> None:
        super().__init__(keeper)
        self._connection = connection
        self._server = connection.server
        self._keeper = keeper

    @property
    def lease(self) -> str:
        """The session's name in the server."""
        return self._keeper.lease

    @property
    def gone(self) -> str:
        """Why the server has gone for good."""
        return self._connection.gone

    @property
    def store_name(self) -> str:
        """The name of the server that it was opened at."""
        return self._server

    @property
    def revocation(self) -> LeaseRevocation:
        """How a guardian ends the session."""
        return revocation.revocation(self._connection.config, self.lease)

    @property
    def keeper(self) -> Keeper:
        """What renews it."""
        return self._keeper

    def _call(self, what: str, call: messages.Call, kind: Any, deadline: float) -> Answer:
        try:
            return self._connection.call(what, call, kind, deadline=deadline)
        except SessionLost as error:
            self._keeper.mark_lost(str(error))
            raise

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record; read the folder's keys and ``reads``."""
        key = check_key(check_folder(folder) + name)
        for scope in reads:
            check_scope(scope)
        call = messages.Join(self.lease, folder, name, value, reads)
        joined: Joined = self._call(f"join as {key!r}", call, Joined, deadline).result
        return joined

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> CreateResult:
        """Create all records or none."""
        for key in values:
            check_key(key)
        call = messages.Create(self.lease, dict(values), guard, lease)
        what = f"create {', '.join(values)}"
        done: Creation = self._call(what, call, Creation, deadline).result
        return done.created or done.exists or GuardGone()

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        """Delete everything in and below the scopes."""
        for scope in scopes:
            check_scope(scope)
        call = messages.Delete(self.lease, scopes, guard)
        return bool(self._call(f"delete {', '.join(scopes)}", call, bool, deadline).result)

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        """Take a second, long lease, and renew it while this session is open."""
        call = messages.GrantLease(self.lease, ttl)
        answer = self._call(f"a lease of {ttl:g} s", call, str, deadline)
        self._keeper.add_lease(answer.result, Renewal(answer.sent, ttl))
        return str(answer.result)

    def keep_alive(self, lease: str, *, deadline: float) -> None:
        """Renew a lease that another session granted, now and from now on."""
        if not self._keeper.keeps_lease(lease):
            renewal = _renew_lease(self._connection, self.lease, lease, deadline=deadline)
            self._keeper.add_lease(lease, renewal)

    def release(self, *, deadline: float) -> None:
        """End the session at once. The renewals stop in any case."""
        self._connection.check()
        self._keeper.stop(deadline=deadline)
        call = messages.EndLease(self.lease)
        self._connection.call("end the session", call, None, deadline=deadline)
        self._keeper.mark_released()
