"""A session on ZooKeeper: its keeper, and the writes that only a living node may make.

This module may import ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from llutil.errors import ConfigError
from llutil.ledgers.errors import (
    LeaseGone,
    LedgerClosed,
    LedgerRefused,
    LedgerUnavailable,
    SessionLost,
)
from llutil.ledgers.keys import check_folder, check_key, check_scope
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.protocol import (
    CreateResult,
    Joined,
    MayComeBack,
    Record,
    SessionState,
)
from llutil.ledgers.renewed_session import RenewedSession
from llutil.ledgers.session_keeper import Renewal
from llutil.ledgers.zookeeper import lease_znodes, session_handshake
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_session import KazooSession, KazooSessionOver
from llutil.ledgers.zookeeper.lease_znodes import LeaseFolder
from llutil.ledgers.zookeeper.member_znode import MemberZnode
from llutil.ledgers.zookeeper.session_handshake import GrantedSession
from llutil.ledgers.zookeeper.session_keeper import ZooKeeperSessionKeeper, renew_session
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths, session_name
from llutil.ledgers.zookeeper.znode_reader import ZnodeReader
from llutil.ledgers.zookeeper.znode_transactions import ZnodeWriter

__all__ = ["ZooKeeperSession", "open_session"]

# Seconds. ZooKeeper counts milliseconds in 32 bits.
_MAX_TTL = 2_000_000


def open_session(
    config: ZooKeeperConfig,
    paths: ZnodePaths,
    ttl: float,
    on_change: Callable[[], None],
    *,
    deadline: float,
) -> ZooKeeperSession:
    """Open a session of ``ttl`` seconds and renew it.

    :raises ConfigError: the server does not grant ``ttl``.
    :raises LedgerRefused: the server is not a ZooKeeper, refuses the credentials, or has no such
        chroot.
    :raises LedgerUnavailable: there was no session by ``deadline``.
    """
    if not 0.001 <= ttl <= _MAX_TTL:
        raise ConfigError(f"lease_ttl is {ttl:g} s; ZooKeeper counts in milliseconds from 1 on")
    granted = session_handshake.open_session(config, ttl, deadline=deadline)
    if round(granted.ttl * 1000) != round(ttl * 1000):
        with suppress(LedgerUnavailable):  # the session expires, and the ttl is wrong all the same
            session_handshake.end_session(
                config, granted.session_id, granted.password, deadline=deadline
            )
        raise ConfigError(
            f"lease_ttl is {ttl:g} s, but {config} grants {granted.ttl:g} s; a server grants from "
            "2 to 20 times its tickTime, unless it has a minSessionTimeout and a "
            f"maxSessionTimeout; set lease_ttl to {granted.ttl:g}"
        )
    keepers: list[ZooKeeperSessionKeeper] = []

    def on_connection_change() -> None:
        for keeper in keepers:
            keeper.on_connection_change()

    kazoo = KazooSession(
        config,
        ttl,
        on_connection_change,
        identity=(granted.session_id, granted.password),
    )
    leases = LeaseFolder(kazoo, paths)
    try:
        sent, chroot_exists = renew_session(leases, deadline=deadline)
        if not chroot_exists:
            raise LedgerRefused(
                f"{config} has no chroot {config.chroot!r}; create it, or correct the endpoint"
            )
    except KazooSessionOver as error:
        kazoo.close(deadline=deadline)
        raise LedgerUnavailable(
            f"open a session of {ttl:g} s: it was over before its first use: {error}"
        ) from error
    except BaseException:
        kazoo.close(deadline=deadline)
        raise
    keeper = ZooKeeperSessionKeeper(leases, session_name(granted.session_id), ttl, sent, on_change)
    keepers.append(keeper)
    return ZooKeeperSession(leases, keeper, granted)


class ZooKeeperSession(RenewedSession, MayComeBack):
    """``llutil.ledgers.Session`` on ZooKeeper. Made by ``open_session``."""

    def __init__(
        self, leases: LeaseFolder, keeper: ZooKeeperSessionKeeper, granted: GrantedSession
    ) -> None:
        super().__init__(keeper)
        self._leases = leases
        self._kazoo = leases.kazoo
        self._paths = leases.paths
        self._keeper = keeper
        self._granted = granted
        self._name = session_name(granted.session_id)
        self._member_znode = MemberZnode(leases.paths, granted)
        self._writer = ZnodeWriter(leases.paths)
        self._asked_for: dict[float, str] = {}
        """The names of leases of which no answer came, by their ttl: a later call takes them."""

    @property
    def lease(self) -> str:
        """The session's id and its password. Who knows both can end the session."""
        return f"{self._name}-{self._granted.password.hex()}"

    @property
    def revocation(self) -> LeaseRevocation:
        """How to end the session by a handshake with its id and password."""
        return session_handshake.revocation(self._kazoo.config, self._granted)

    def cut_off(self, until: float) -> None:
        """Renew nothing before ``until``, and have kazoo do neither."""
        super().cut_off(until)
        self._kazoo.cut_off(until)

    def abandon(self, *, deadline: float) -> None:
        """Stop the renewals, and close the connection."""
        super().abandon(deadline=deadline)
        self._kazoo.close(deadline=deadline)

    def _retry(self, what: str, act: Callable[[ZnodeReader, bool], Any], deadline: float) -> Any:
        """``KazooSession.retry`` with a reader. :raises SessionLost: the session is over."""
        reader = self._leases.reader(deadline)

        def again(maybe_applied: bool) -> Any:
            if maybe_applied:
                reader.sync()  # the new server may not know yet what the last one applied
            return act(reader, maybe_applied)

        try:
            return self._kazoo.retry(what, again, deadline=deadline)
        except KazooSessionOver as error:
            self._keeper.mark_lost("ZooKeeper says that the session is over")
            raise self._session_lost(error) from error
        except LedgerClosed as error:
            if self.state is SessionState.LOST and not self._kazoo.inherited:
                raise self._session_lost(error) from error
            raise

    def _session_lost(self, error: Exception) -> SessionLost:
        return SessionLost(f"session {self._name} on {self._kazoo.config} is over: {error}")

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record; then read the folder's names and ``reads``."""
        key = check_key(check_folder(folder) + name)
        scopes = [check_scope(scope) for scope in reads]

        joined: Joined = self._retry(
            f"join as {key!r}",
            lambda reader, _: self._member_znode.join(reader, folder, key, value, scopes),
            deadline,
        )
        return joined

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> CreateResult:
        """Create all records or none, in one transaction."""
        for key in values:
            check_key(key)
        what = f"create {', '.join(values)}"
        outcome: CreateResult | None = self._retry(
            what,
            lambda reader, maybe_applied: self._writer.create(
                reader, values, guard, lease, maybe_applied
            ),
            deadline,
        )
        if outcome is None:
            raise LeaseGone(f"{what}: {lease} on {self._kazoo.config} is over")
        return outcome

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        """Delete everything in and below the scopes, a few hundred records in one transaction."""
        for scope in scopes:
            check_scope(scope)

        act = partial(self._writer.delete, scopes=scopes, guard=guard)
        return bool(
            self._retry(f"delete {', '.join(scopes)}", lambda reader, _: act(reader), deadline)
        )

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        """Take a second, long lease of ``ttl`` seconds, and renew it while this session is open.
        Also sweep old leases.
        """
        if ttl <= 0:
            raise ConfigError(f"a lease of {ttl:g} s was asked for; wanted more than 0")
        name = self._asked_for.setdefault(ttl, lease_znodes.new_name())
        lease = self._on_leases(
            lambda: lease_znodes.grant(self._leases, name, ttl, deadline=deadline)
        )
        del self._asked_for[ttl]
        self._keeper.add_lease(lease.name, Renewal(time.monotonic(), ttl))
        self._keeper.sweep(lease.written_ms)
        return str(lease.name)

    def keep_alive(self, lease: str, *, deadline: float) -> None:
        """Renew a lease that another session granted, now and from now on."""
        if self._keeper.keeps_lease(lease):
            self._kazoo.check()
            return
        renewed = self._on_leases(
            lambda: lease_znodes.renew(self._leases, lease, deadline=deadline)
        )
        if renewed is None:
            raise LeaseGone(f"{lease} on {self._kazoo.config} is over")
        self._keeper.add_lease(lease, Renewal(time.monotonic(), renewed.ttl))

    def _on_leases(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except KazooSessionOver as error:
            self._keeper.mark_lost("ZooKeeper says that the session is over")
            raise self._session_lost(error) from error

    def release(self, *, deadline: float) -> None:
        """End the session. The renewals stop in any case."""
        if self._kazoo.inherited or self._keeper.state is not SessionState.LOST:
            self._kazoo.check()
        self._keeper.stop(deadline=deadline)
        server_ended_it = self._kazoo.close(deadline=deadline)
        if not server_ended_it and self.state is not SessionState.LOST:
            config, granted = self._kazoo.config, self._granted
            session_handshake.end_session(
                config, granted.session_id, granted.password, deadline=deadline
            )
        self._keeper.mark_released()
