"""A session on ZooKeeper: the keeper of it, and the writes that only a living node may make.

Of ours this module imports ``llutil.ledgers`` and what lies in this folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
    Record,
    SessionState,
)
from llutil.ledgers.session_keeper import Renewal
from llutil.ledgers.zookeeper import lease_znodes, session_handshake
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_session import KazooSession, KazooSessionOver
from llutil.ledgers.zookeeper.lease_znodes import LeaseZnodes
from llutil.ledgers.zookeeper.member_znode import MemberZnode
from llutil.ledgers.zookeeper.session_handshake import GrantedSession
from llutil.ledgers.zookeeper.session_keeper import ZooKeeperSessionKeeper, renew_session
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths, session_name
from llutil.ledgers.zookeeper.znode_reader import ZnodeReader
from llutil.ledgers.zookeeper.znode_transactions import ZnodeWriter

__all__ = ["ZooKeeperSession", "open_session"]

_LONGEST = 2_000_000  # seconds; ZooKeeper counts milliseconds in 32 bits


def open_session(
    config: ZooKeeperConfig,
    places: ZnodePaths,
    ttl: float,
    on_change: Callable[[], None],
    *,
    deadline: float,
) -> ZooKeeperSession:
    """Open a session of ``ttl`` seconds and keep it.

    :raises ConfigError: the server does not grant ``ttl``.
    :raises LedgerRefused: it is no ZooKeeper, does not want us, or the chroot is not there.
    """
    if not 0.001 <= ttl <= _LONGEST:
        raise ConfigError(f"lease_ttl is {ttl:g} s; ZooKeeper counts in milliseconds from 1 on")
    granted = session_handshake.open_session(config, ttl, deadline=deadline)
    if round(granted.ttl * 1000) != round(ttl * 1000):
        session_handshake.end_session(config, granted.session, granted.password, deadline=deadline)
        raise ConfigError(
            f"lease_ttl is {ttl:g} s, but {config} grants {granted.ttl:g} s; a server grants from 2 to 20 times its "
            f"tickTime, unless it has a minSessionTimeout and a maxSessionTimeout; set lease_ttl to {granted.ttl:g}"
        )
    keepers: list[ZooKeeperSessionKeeper] = []

    def look() -> None:
        for keeper in keepers:
            keeper.look()

    line = KazooSession(
        config,
        ttl,
        look,
        identity=(granted.session, granted.password),
    )
    granting = LeaseZnodes(line, places)
    try:
        sent, rooted = renew_session(granting, deadline=deadline)
        if not rooted:
            raise LedgerRefused(
                f"the chroot {config.chroot!r} is not there on {config}; create it, or correct the endpoint"
            )
    except KazooSessionOver as error:
        line.close(deadline=deadline)
        raise LedgerUnavailable(
            f"open a session of {ttl:g} s: it was over before it was used: {error}"
        ) from error
    except BaseException:
        line.close(deadline=deadline)
        raise
    keeper = ZooKeeperSessionKeeper(granting, session_name(granted.session), ttl, sent, on_change)
    keepers.append(keeper)
    return ZooKeeperSession(granting, keeper, granted)


class ZooKeeperSession:
    """``llutil.ledgers.Session`` on ZooKeeper. Made by ``open_session``."""

    def __init__(
        self, granting: LeaseZnodes, keeper: ZooKeeperSessionKeeper, granted: GrantedSession
    ) -> None:
        self._granting = granting
        self._line = granting.line
        self._places = granting.places
        self._keeper = keeper
        self._granted = granted
        self._name = session_name(granted.session)
        self._joiner = MemberZnode(granting.places, granted)
        self._writer = ZnodeWriter(granting.places)

    @property
    def ttl(self) -> float:
        """Seconds that the session outlives its last renewal."""
        return self._keeper.renewal.ttl

    @property
    def lease(self) -> str:
        """The session's id and its password: who has both can end it."""
        return f"{self._name}-{self._granted.password.hex()}"

    @property
    def renewed_at(self) -> float:
        """``time.monotonic()`` when the last renewal that succeeded was sent."""
        return self._keeper.renewal.sent

    @property
    def state(self) -> SessionState:
        """The state now."""
        return self._keeper.state

    @property
    def revocation(self) -> LeaseRevocation:
        """To end the session by a handshake with its id and password."""
        return session_handshake.revocation(self._line.config, self._granted)

    @property
    def is_renewed(self) -> bool:
        """Whether it is still renewed."""
        return self._keeper.is_alive

    def abandon(self, *, deadline: float) -> None:
        """Stop renewing it, and close its line."""
        self._keeper.stop(deadline=deadline)
        self._line.close(deadline=deadline)

    def _trying(self, what: str, act: Callable[[ZnodeReader, bool], Any], deadline: float) -> Any:
        """``KazooSession.trying`` with a reader. :raises SessionLost: the session is over."""
        reader = self._granting.reader(deadline)

        def again(doubtful: bool) -> Any:
            if doubtful:
                reader.sync()  # another server may not have seen yet what the last one did
            return act(reader, doubtful)

        try:
            return self._line.trying(what, again, deadline=deadline)
        except KazooSessionOver as error:
            self._keeper.mark_lost("ZooKeeper says that its time is over")
            raise self._lost(error) from error
        except LedgerClosed as error:
            if self.state is SessionState.LOST and not self._line.inherited:
                raise self._lost(error) from error
            raise

    def _lost(self, error: Exception) -> SessionLost:
        return SessionLost(f"session {self._name} on {self._line.config} is over: {error}")

    def join(
        self, folder: str, name: str, value: bytes, *, reads: tuple[str, ...] = (), deadline: float
    ) -> Joined:
        """Put the node's own record, then read the folder's names and ``reads``."""
        key = check_key(check_folder(folder) + name)
        scopes = [check_scope(scope) for scope in reads]

        joined: Joined = self._trying(
            f"join as {key!r}",
            lambda reader, _: self._joiner.join(reader, folder, key, value, scopes),
            deadline,
        )
        return joined

    def create(
        self, values: Mapping[str, bytes], *, guard: Record, lease: str, deadline: float
    ) -> CreateResult:
        """Create records, all or none, in one transaction."""
        for key in values:
            check_key(key)
        what = f"create {', '.join(values)}"
        outcome: CreateResult | None = self._trying(
            what,
            lambda reader, doubtful: self._writer.create(reader, values, guard, lease, doubtful),
            deadline,
        )
        if outcome is None:
            raise LeaseGone(f"{what}: {lease} on {self._line.config} is over")
        return outcome

    def delete(self, *scopes: str, guard: Record, deadline: float) -> bool:
        """Delete what is in and below the scopes; a few hundred records in one transaction."""
        for scope in scopes:
            check_scope(scope)

        act = partial(self._writer.delete, scopes=scopes, guard=guard)
        return bool(
            self._trying(f"delete {', '.join(scopes)}", lambda reader, _: act(reader), deadline)
        )

    def leave(self, record: Record, *, deadline: float) -> None:
        """Delete the own record, if it is still there."""
        path = self._places.path(record)
        self._joiner.left()
        self._trying(
            f"leave {record.key!r}", lambda reader, _: self._joiner.remove(reader, path), deadline
        )

    def grant_lease(self, ttl: float, *, deadline: float) -> str:
        """A second, long lease of ``ttl`` seconds, kept by this session while it is open; and sweep
        old ones.
        """
        if ttl <= 0:
            raise ConfigError(f"a lease of {ttl:g} s was asked for; wanted more than 0")
        lease = self._on_leases(lambda: lease_znodes.grant(self._granting, ttl, deadline=deadline))
        self._keeper.add_lease(lease.name, Renewal(time.monotonic(), ttl))
        self._keeper.sweep(lease.written)
        return str(lease.name)

    def keep_alive(self, lease: str, *, deadline: float) -> None:
        """Renew a lease that another session granted, now and from now on."""
        if self._keeper.keeps_lease(lease):
            self._line.check()
            return
        renewed = self._on_leases(
            lambda: lease_znodes.renew(self._granting, lease, deadline=deadline)
        )
        if renewed is None:
            raise LeaseGone(f"{lease} on {self._line.config} is over")
        self._keeper.add_lease(lease, Renewal(time.monotonic(), renewed.ttl))

    def _on_leases(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except KazooSessionOver as error:
            self._keeper.mark_lost("ZooKeeper says that its time is over")
            raise self._lost(error) from error

    def release(self, *, deadline: float) -> None:
        """End the session; stop keeping it in any case."""
        if self._line.inherited or self._keeper.state is not SessionState.LOST:
            self._line.check()
        self._keeper.stop(deadline=deadline)
        noted = self._line.close(deadline=deadline)
        if not noted and self.state is not SessionState.LOST:
            config, granted = self._line.config, self._granted
            session_handshake.end_session(
                config, granted.session, granted.password, deadline=deadline
            )
        self._keeper.mark_released()
