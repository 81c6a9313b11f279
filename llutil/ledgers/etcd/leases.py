"""Leases in etcd: ``grant``, ``renew``, ``revoke``, and ``EtcdSessionKeeper``, which renews those
of a session.

This module may import ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from llutil.ledgers import session_keeper
from llutil.ledgers.errors import LedgerUnavailable, SessionLost
from llutil.ledgers.etcd.connection import Connection, LeaseExists, LeaseMissing
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.etcd.messages import lease_id, lease_name
from llutil.ledgers.keys import Namespace
from llutil.ledgers.session_keeper import RENEWAL_TIMEOUT, Renewal

__all__ = ["EtcdLease", "EtcdSessionKeeper", "grant", "new_number", "renew", "revoke"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EtcdLease:
    """A lease, and its last renewal."""

    number: int
    renewal: Renewal


def renew(connection: Connection, number: int, *, deadline: float) -> EtcdLease | None:
    """Renew a lease; None if etcd says that it is over.

    :raises LedgerUnavailable, LedgerRefused: as ``Connection.call``.
    """
    what = f"renew lease {lease_name(number)}"
    request = etcdrpc.LeaseKeepAliveRequest(ID=number)
    answer = connection.call(what, lambda channel: channel.renew, request, deadline=deadline)
    return (
        EtcdLease(number, Renewal(answer.sent, answer.reply.TTL)) if answer.reply.TTL > 0 else None
    )


def new_number() -> int:
    """The id of a lease that is to be granted. It is drawn by us and not by etcd. So if the answer
    to a first attempt is lost, a second one finds the lease that the first one granted.
    """
    return secrets.randbits(62) + 1


def grant(connection: Connection, number: int, ttl: int, *, deadline: float) -> EtcdLease:
    """Grant the lease ``number`` of ``ttl`` seconds, unless an earlier attempt did; etcd may make
    it longer.

    :raises LedgerUnavailable, LedgerRefused: as ``Connection.call``.
    """
    what = f"grant a lease of {ttl} s"
    request = etcdrpc.LeaseGrantRequest(TTL=ttl, ID=number)
    try:
        answer = connection.call(
            what, lambda channel: channel.lease.LeaseGrant, request, deadline=deadline
        )
    except LeaseExists:
        lease = renew(connection, number, deadline=deadline)
        if lease is None:
            raise LedgerUnavailable(
                f"{what}: etcd's answer took longer than {ttl} s, and the lease was over by then; "
                "etcd is overloaded or was cut off"
            ) from None
        return lease
    return EtcdLease(number, Renewal(answer.sent, answer.reply.TTL))


def revoke(connection: Connection, number: int, *, deadline: float) -> None:
    """End a lease, and delete all its records. It is no error if it is over already."""
    what = f"revoke lease {lease_name(number)}"
    request = etcdrpc.LeaseRevokeRequest(ID=number)
    try:
        connection.call(what, lambda channel: channel.lease.LeaseRevoke, request, deadline=deadline)
    except LeaseMissing:
        _log.debug("%s: it was over already", what)


class EtcdSessionKeeper(session_keeper.SessionKeeper):
    """Renews ``lease``, which is that of a session, and the leases beside it.

    Before a lease counts as over, etcd is asked twice. A member that has just become leader may not
    know yet a lease that was granted before.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: Namespace,
        lease: EtcdLease,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(lease_name(lease.number), connection.config, lease.renewal, on_change)
        self.number = lease.number
        """The session's lease."""
        self._connection = connection
        self._namespace = namespace
        self.start()

    def _renew_session(self, *, deadline: float) -> Renewal:
        lease = self._renew_twice(self.number, deadline)
        if lease is None:
            raise SessionLost("etcd says that its lease is over")
        return lease.renewal

    def _renew_lease(self, name: str, *, deadline: float) -> Renewal | None:
        lease = self._renew_twice(lease_id(name), deadline)
        return None if lease is None else lease.renewal

    def _renew_twice(self, number: int, deadline: float) -> EtcdLease | None:
        lease = renew(self._connection, number, deadline=deadline)
        if lease is not None:
            return lease
        # A quorum read brings the member that answers up to date. Then it is asked again.
        deadline = time.monotonic() + RENEWAL_TIMEOUT
        # The key is in the namespace, because the user may have no rights elsewhere.
        key = self._namespace.prefix.encode()
        request = etcdrpc.RangeRequest(key=key, count_only=True)
        self._connection.call("read", lambda channel: channel.kv.Range, request, deadline=deadline)
        return renew(self._connection, number, deadline=deadline)
