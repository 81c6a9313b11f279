"""Leases in etcd: to grant, renew and revoke them, and ``EtcdSessionKeeper``, which keeps those of
a session.

Of ours this module imports ``llutil.ledgers`` and what lies in this folder.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from llutil.ledgers import session_keeper
from llutil.ledgers.errors import LedgerUnavailable, SessionLost
from llutil.ledgers.etcd.connection import Connection, LeaseMissing, LeasePresent
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.etcd.messages import lease_id, lease_name
from llutil.ledgers.keys import Namespace
from llutil.ledgers.session_keeper import RENEWAL, Renewal

__all__ = ["EtcdLease", "EtcdSessionKeeper", "grant", "renew", "revoke"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EtcdLease:
    """A lease as it was when last renewed."""

    number: int
    renewal: Renewal


def renew(connection: Connection, number: int, *, deadline: float) -> EtcdLease | None:
    """Renew a lease; None if etcd says that it is over.

    :raises LedgerUnavailable, LedgerRefused: as ``Connection.call``.
    """
    what = f"renew lease {lease_name(number)}"
    request = etcdrpc.LeaseKeepAliveRequest(ID=number)
    answer = connection.call(what, lambda line: line.renew, request, deadline=deadline)
    return (
        EtcdLease(number, Renewal(answer.sent, answer.reply.TTL)) if answer.reply.TTL > 0 else None
    )


def grant(connection: Connection, ttl: int, *, deadline: float) -> EtcdLease:
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
    return EtcdLease(number, Renewal(answer.sent, answer.reply.TTL))


def revoke(connection: Connection, number: int, *, deadline: float) -> None:
    """End a lease, and all records that hang on it. One that is over already is fine."""
    what = f"revoke lease {lease_name(number)}"
    request = etcdrpc.LeaseRevokeRequest(ID=number)
    try:
        connection.call(what, lambda line: line.lease.LeaseRevoke, request, deadline=deadline)
    except LeaseMissing:
        _log.debug("%s: it was over already", what)


class EtcdSessionKeeper(session_keeper.SessionKeeper):
    """Keeps ``lease``, a session's, and others beside it.

    etcd is asked twice whether a lease is over: a member that just became leader may not yet know
    one that was granted before.
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
        # A second opinion: after a read that a quorum stands for, the member that answers is up to
        # date.
        deadline = time.monotonic() + RENEWAL
        key = self._namespace.prefix.encode()  # a user may be allowed to read nothing else
        request = etcdrpc.RangeRequest(key=key, count_only=True)
        self._connection.call("read", lambda line: line.kv.Range, request, deadline=deadline)
        return renew(self._connection, number, deadline=deadline)
