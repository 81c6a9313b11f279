"""A session on etcd: a lease, its keeper, and the writes that only a living node may make.

This module may import ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import ceil
from typing import Any

from llutil.errors import ConfigError
from llutil.ledgers.errors import LeaseGone, LedgerConflict, LedgerUnavailable, SessionLost
from llutil.ledgers.etcd import http_revocation, messages
from llutil.ledgers.etcd.connection import Answer, Connection, LeaseMissing
from llutil.ledgers.etcd.leases import EtcdSessionKeeper, grant, new_number, renew, revoke
from llutil.ledgers.keys import Namespace, check_folder, check_key, check_scope
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import (
    Created,
    CreateResult,
    Exists,
    GuardGone,
    Joined,
    MayComeBack,
    Record,
    View,
)
from llutil.ledgers.renewed_session import RenewedSession

__all__ = ["EtcdSession", "open_session"]

# Seconds. etcd's own limit (lease/lessor.go).
_MAX_TTL = 9_000_000_000


def open_session(
    connection: Connection,
    namespace: Namespace,
    ttl: float,
    on_change: Callable[[], None],
    *,
    deadline: float,
) -> EtcdSession:
    """Take a lease of ``ttl`` seconds and renew it.

    :raises ConfigError: ``ttl`` is not a whole number of seconds, or is shorter than this etcd
        grants.
    """
    if not 1 <= ttl <= _MAX_TTL or ttl != int(ttl):
        raise ConfigError(f"lease_ttl is {ttl:g} s; etcd counts leases in whole seconds from 1 on")
    lease = grant(connection, new_number(), int(ttl), deadline=deadline)
    if lease.renewal.ttl != ttl:
        with suppress(LedgerUnavailable):  # the lease expires, and the ttl is wrong all the same
            revoke(connection, lease.number, deadline=deadline)
        raise ConfigError(
            f"lease_ttl is {ttl:g} s, but {connection.config} grants no lease shorter than "
            f"{lease.renewal.ttl:g} s (one and a half times its election timeout); "
            f"set lease_ttl to {lease.renewal.ttl:g} or more"
        )
    return EtcdSession(
        connection, namespace, EtcdSessionKeeper(connection, namespace, lease, on_change)
    )


class EtcdSession(RenewedSession, MayComeBack):
    """``llutil.ledgers.Session`` on etcd. Made by ``open_session``."""

    def __init__(
        self, connection: Connection, namespace: Namespace, keeper: EtcdSessionKeeper
    ) -> None:
        super().__init__(keeper)
        self._connection = connection
        self._namespace = namespace
        self._keeper = keeper
        self._asked_for: dict[float, int] = {}
        """The numbers of leases of which no answer came, by their ttl: a later call takes them."""

    @property
    def lease(self) -> str:
        """The session's lease, as etcd's tools write it."""
        return messages.lease_name(self._keeper.number)

    @property
    def revocation(self) -> LeaseRevocation:
        """How to revoke the lease by etcd's JSON calls."""
        return http_revocation.revocation(self._connection.config, self._keeper.number)

    def _txn(self, what: str, request: Any, *, deadline: float) -> Answer:
        return self._connection.call(
            what, lambda channel: channel.kv.Txn, request, deadline=deadline
        )

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record; read the folder's keys and ``reads``. All in one
        transaction.
        """
        key = check_key(check_folder(folder) + name)
        lease = self._keeper.number
        scopes = [(folder, True), *((check_scope(scope), False) for scope in reads)]
        request = messages.join(self._namespace, key, value, lease, scopes)
        try:
            answer = self._txn(f"join as {key!r}", request, deadline=deadline)
        except LeaseMissing as error:
            self._keeper.mark_lost("etcd says that its lease is over")
            raise SessionLost(
                f"session {self.lease} on {self._connection.config} is over: {error}"
            ) from error
        reply = answer.reply
        revision = reply.header.revision
        first, *ranges = reply.responses
        if reply.succeeded:
            own = Record(key, value, revision, self.lease)
        else:
            own = messages.to_record(self._namespace, first.response_range.kvs[0])
            if (own.value, own.lease) != (value, self.lease):
                raise LedgerConflict(
                    f"join as {key!r}: session {own.lease or '(none)'} has a record of that name; "
                    "every node needs a name of its own"
                )
        found = [one.response_range.kvs for one in ranges]
        members = messages.to_view(self._namespace, folder, found[0], revision)
        with_own = (own if record.key == key else record for record in members.records)
        views = {
            scope: messages.to_view(self._namespace, scope, kvs, revision)
            for scope, kvs in zip(reads, found[1:], strict=True)
        }
        return Joined(own, View(tuple(with_own), revision), views)

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> CreateResult:
        """Create all records or none, in one transaction."""
        for key in values:
            check_key(key)
        what = f"create {', '.join(values)}"
        number = messages.lease_id(lease)
        request = messages.create(self._namespace, values, guard, number)
        try:
            answer = self._txn(what, request, deadline=deadline)
        except LeaseMissing as error:
            raise LeaseGone(
                f"{what}: lease {lease} on {self._connection.config} is over"
            ) from error
        reply = answer.reply
        if reply.succeeded:
            revision = reply.header.revision
            return Created(tuple(Record(key, values[key], revision, lease) for key in values))
        guards, *ranges = (one.response_range.kvs for one in reply.responses)
        existing = tuple(messages.to_record(self._namespace, kv) for kvs in ranges for kv in kvs)
        if answer.maybe_applied and {record.key: record.value for record in existing} == values:
            # An earlier attempt of this call created them, even if the guard is gone by now.
            return Created(existing)
        if not guards or guards[0].create_revision != guard.created:
            return GuardGone()
        return Exists(existing)

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        """Delete everything in and below the scopes, in one transaction."""
        for scope in scopes:
            check_scope(scope)
        what = f"delete {', '.join(scopes)}"
        request = messages.delete(self._namespace, scopes, guard)
        return bool(self._txn(what, request, deadline=deadline).reply.succeeded)

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        """Take a second, long lease of ``ttl`` seconds (rounded up), and renew it while this
        session is open.
        """
        if ttl <= 0:
            raise ConfigError(f"a lease of {ttl:g} s was asked for; wanted more than 0")
        number = self._asked_for.setdefault(ttl, new_number())
        lease = grant(self._connection, number, ceil(ttl), deadline=deadline)
        del self._asked_for[ttl]
        name = messages.lease_name(lease.number)
        self._keeper.add_lease(name, lease.renewal)
        return name

    def keep_alive(self, lease: str, *, deadline: float) -> None:
        """Renew a lease that another session granted, now and from now on."""
        number = messages.lease_id(lease)
        name = messages.lease_name(number)
        if self._keeper.keeps_lease(name):
            return
        renewed = renew(self._connection, number, deadline=deadline)
        if renewed is None:
            raise LeaseGone(f"lease {lease} on {self._connection.config} is over")
        self._keeper.add_lease(name, renewed.renewal)

    def release(self, *, deadline: float) -> None:
        """Revoke the lease. The renewals stop in any case."""
        self._connection.check()
        self._keeper.stop(deadline=deadline)
        revoke(self._connection, self._keeper.number, deadline=deadline)
        self._keeper.mark_released()
