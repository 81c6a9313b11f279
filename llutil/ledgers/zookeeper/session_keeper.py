"""What keeps a session on ZooKeeper: ``ZooKeeperSessionKeeper``.

kazoo keeps the session's connection, but does not tell when the server last heard of it. So a
renewal here is a request for something small that ZooKeeper has answered. (A follower answers
before the leader hears of it, half a tick later at most: if the two are cut off from each other in
that moment, the session may be over by so much earlier. What is written is checked by ZooKeeper in
any case.) Beside that the keeper sweeps what others left behind.

Of ours this module imports ``llutil.ledgers`` and what lies in this folder.
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
from llutil.ledgers.zookeeper.lease_znodes import LeaseZnodes

__all__ = ["ZooKeeperSessionKeeper", "renew_session"]

_log = logging.getLogger(__name__)

_SWEEP = 10.0  # seconds for a sweep


def renew_session(granting: LeaseZnodes, *, deadline: float) -> tuple[float, bool]:
    """When a request that ZooKeeper answered was sent, and whether the chroot is there.

    :raises LineOver: the session is over.
    """
    sent = 0.0

    def act(_: bool) -> bool:
        nonlocal sent
        granting.line.wait_for_connection(deadline)
        sent = time.monotonic()
        reader = granting.reader(deadline)
        return reader.ask(lambda client: client.exists_async("/")) is not None

    rooted = granting.line.trying("renew the session", act, deadline=deadline)
    return sent, rooted


class ZooKeeperSessionKeeper(session_keeper.SessionKeeper):
    """Keeps a session of ``ttl`` seconds that was renewed at ``sent``, and sweeps what others left
    behind.
    """

    def __init__(
        self,
        granting: LeaseZnodes,
        name: str,
        ttl: float,
        sent: float,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(name, granting.line.config, Renewal(sent, ttl), on_change)
        self._ttl = ttl
        self._granting = granting
        self._sweeps: list[int] = []
        """Times of the server (ms) at which to sweep."""
        self.start()

    def sweep(self, now: int) -> None:
        """Sweep what is over at that time of the server (ms), when there is nothing more urgent to
        do.
        """
        with self._changed:
            self._sweeps.append(now)
            self._changed.notify()

    def look(self) -> None:
        """The connection came or went. From kazoo's thread."""
        if self._granting.line.is_over:
            self.mark_lost("ZooKeeper says that its time is over")
        self.renew_if_suspended()

    def _renew_session(self, *, deadline: float) -> Renewal:
        sent, _ = renew_session(self._granting, deadline=deadline)
        return Renewal(sent, self._ttl)

    def _renew_lease(self, name: str, *, deadline: float) -> Renewal | None:
        lease = lease_znodes.renew(self._granting, name, deadline=deadline)
        return None if lease is None else Renewal(time.monotonic(), lease.ttl)

    def _extra_task(self) -> Callable[[], None] | None:
        return partial(self._sweep, self._sweeps.pop()) if self._sweeps else None

    def _run(self) -> None:
        super()._run()
        if (
            self._is_over and not self._stopping
        ):  # nobody else closes it before the ledger is closed
            self._granting.line.close(deadline=time.monotonic() + RENEWAL_TIMEOUT)

    def _sweep(self, now: int) -> None:
        deadline = time.monotonic() + min(_SWEEP, self._ttl / 3)
        try:
            lease_znodes.sweep(self._granting, now, deadline=deadline)
        except (LedgerClosed, SessionLost):
            raise
        except LedgerError as error:
            _log.info("what is over stays until somebody else sweeps: %s", error)
