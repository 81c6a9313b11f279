"""``ZooKeeperSessionKeeper``: the thread that renews a session on ZooKeeper.

kazoo keeps the session's connection, but does not tell when the server last heard from it. So a
renewal here is a small request that ZooKeeper has answered. (A follower answers at once, and tells
the leader up to half a tick later. If both lose each other in that moment, the session may be over
by that much earlier than the keeper thinks. Writes are safe in any case, because ZooKeeper checks
them.) The keeper's thread also sweeps leases of other jobs that are over.

This module may import ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from llutil.ledgers import session_keeper
from llutil.ledgers.errors import LedgerClosed, LedgerError, SessionLost
from llutil.ledgers.session_keeper import RENEWAL_TIMEOUT, Renewal
from llutil.ledgers.zookeeper import lease_znodes
from llutil.ledgers.zookeeper.lease_znodes import LeaseFolder

__all__ = ["ZooKeeperSessionKeeper", "renew_session"]

_log = logging.getLogger(__name__)

# Seconds for a sweep.
_SWEEP_TIMEOUT = 10.0


def renew_session(leases: LeaseFolder, *, deadline: float) -> tuple[float, bool]:
    """Send a request and wait for its answer. Returns ``time.monotonic()`` when the request was
    sent, and whether the chroot exists.

    :raises KazooSessionOver: the session is over.
    """
    sent = 0.0

    def act(_: bool) -> bool:
        nonlocal sent
        leases.kazoo.wait_for_connection(deadline)
        sent = time.monotonic()
        reader = leases.reader(deadline)
        return reader.ask(lambda client: client.exists_async("/")) is not None

    chroot_exists = leases.kazoo.retry("renew the session", act, deadline=deadline)
    return sent, chroot_exists


class ZooKeeperSessionKeeper(session_keeper.SessionKeeper):
    """Renews a session of ``ttl`` seconds, which was last renewed at ``sent``, and sweeps old
    leases.
    """

    def __init__(
        self,
        leases: LeaseFolder,
        name: str,
        ttl: float,
        sent: float,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(name, leases.kazoo.config, Renewal(sent, ttl), on_change)
        self._ttl = ttl
        self._leases = leases
        self._sweep_times: list[int] = []
        """Times (the server's clock, in ms) for which a sweep was requested."""
        self.start()

    def sweep(self, now_ms: int) -> None:
        """Request a sweep of what is over at ``now_ms`` (the server's clock, in ms). The thread
        does it when no renewal is due.
        """
        with self._changed:
            self._sweep_times.append(now_ms)
            self._changed.notify()

    def on_connection_change(self) -> None:
        """The connection was made or lost. Called from kazoo's thread."""
        if self._leases.kazoo.is_over:
            self.mark_lost("ZooKeeper says that the session is over")
        self.renew_if_suspended()

    def _renew_session(self, *, deadline: float) -> Renewal:
        sent, _ = renew_session(self._leases, deadline=deadline)
        return Renewal(sent, self._ttl)

    def _renew_lease(self, name: str, *, deadline: float) -> Renewal | None:
        lease = lease_znodes.renew(self._leases, name, deadline=deadline)
        return None if lease is None else Renewal(time.monotonic(), lease.ttl)

    def _extra_task(self) -> Callable[[], None] | None:
        return partial(self._sweep, self._sweep_times.pop()) if self._sweep_times else None

    def _run(self) -> None:
        super()._run()
        # The session is lost. Without this its connection would stay open until the ledger closes.
        if self._is_over and not self._stopping:
            self._leases.kazoo.close(deadline=time.monotonic() + RENEWAL_TIMEOUT)

    def _sweep(self, now_ms: int) -> None:
        deadline = time.monotonic() + min(_SWEEP_TIMEOUT, self._ttl / 3)
        try:
            lease_znodes.sweep(self._leases, now_ms, deadline=deadline)
        except (LedgerClosed, SessionLost):
            raise
        except LedgerError as error:
            _log.info("old leases stay until the next job sweeps them: %s", error)
