"""The thread that keeps a session on ZooKeeper: ``Keeper``.

kazoo keeps the session's connection, but does not tell when the server last heard of it. So the keeper asks for
something small every third of the ttl: from the sending of the last request that was answered it knows until when the
session lives for certain, and after that it is suspended, until ZooKeeper answers. Only ZooKeeper can say that it is
lost. (A follower answers before the leader hears of it, half a tick later at most: if the two are cut off from each
other in that moment, the session may be over by so much earlier. What is written is checked by ZooKeeper in any case.)

Beside it the keeper renews the granted leases, and sweeps what others left behind. One thread a keeper, ended by
``stop``. Of ours this module imports ``llutil.ledgers`` and what lies in this folder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from llutil.ledgers.errors import LedgerClosed, LedgerError
from llutil.ledgers.protocol import SessionState
from llutil.ledgers.zookeeper import leases
from llutil.ledgers.zookeeper.leases import Granting, Lease
from llutil.ledgers.zookeeper.line import LineOver

__all__ = ["Keeper", "renew_session"]

_log = logging.getLogger(__name__)

_RENEWAL = 4.0  # seconds that one renewal may take
_PAUSE = 0.25  # seconds from a failed renewal to the next
_SWEEP = 10.0  # seconds for a sweep
_SESSION = ""  # the session among the names of leases


def renew_session(granting: Granting, *, deadline: float) -> tuple[float, bool]:
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


class Keeper:
    """Keeps a session of ``ttl`` seconds that was renewed at ``sent``; ``on_change`` is called when its state changes."""

    def __init__(
        self, granting: Granting, name: str, ttl: float, sent: float, on_change: Callable[[], None]
    ) -> None:
        self.ttl = ttl
        self._granting = granting
        self._name = name
        self._on_change = on_change
        self._changed = threading.Condition()
        """Guards changes to all below; notified when the thread has something new to do."""
        self._sent = sent
        self._due: dict[str, float] = {_SESSION: sent + ttl / 3}
        self._ttls: dict[str, float] = {}
        self._sweeps: list[int] = []
        self._over = False
        self._stopping = False
        self._told = SessionState.CONNECTED
        self._trouble = ""
        """Why the last renewal failed, if it did."""
        self._thread = threading.Thread(target=self._run, name="llutil-lease", daemon=True)
        self._thread.start()

    @property
    def sent(self) -> float:
        """``time.monotonic()`` when the last renewal that succeeded was sent."""
        return self._sent

    @property
    def state(self) -> SessionState:
        """The session's state now."""
        if self._over:
            return SessionState.LOST
        alive = time.monotonic() < self._sent + self.ttl
        return SessionState.CONNECTED if alive else SessionState.SUSPENDED

    @property
    def is_alive(self) -> bool:
        """Whether the thread still renews."""
        return self._thread.is_alive()

    def add(self, lease: Lease, *, sweep: bool) -> None:
        """Keep this granted lease too; ``sweep`` what is over at the time of its writing."""
        with self._changed:
            self._ttls[lease.name] = lease.ttl
            self._due[lease.name] = time.monotonic() + lease.ttl / 3
            if sweep:
                self._sweeps.append(lease.written)
            self._changed.notify()

    def keeps(self, name: str) -> bool:
        """Whether this lease is among those kept beside the session."""
        with self._changed:
            return name in self._ttls

    def look(self) -> None:
        """The connection came or went. From kazoo's thread."""
        if self._granting.line.is_over:
            self.lose("ZooKeeper says that its time is over")
        with self._changed:
            if self._told is SessionState.SUSPENDED and not self._over:
                self._due[_SESSION] = time.monotonic()
            self._changed.notify()

    def lose(self, why: str) -> None:
        """ZooKeeper has said that the session is over."""
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
        config = self._granting.line.config
        if state is SessionState.CONNECTED:
            _log.info("session %s on %s is connected again", self._name, config)
        else:
            _log.warning("session %s on %s is %s: %s", self._name, config, state, why)
        self._on_change()

    def _run(self) -> None:
        try:
            while (act := self._wait()) is not None:
                self._tell(
                    self._trouble or "this process was held up, and did not renew it in time"
                )
                act()
        except LedgerClosed:
            return
        except Exception:  # noqa: BLE001 - the thread's edge
            _log.exception("session %s is not renewed any more", self._name)
            self.lose("this side broke down")  # it will be over: better now than suspended for ever
        finally:
            if self._over and not self._stopping:
                self._granting.line.close(deadline=time.monotonic() + _RENEWAL)

    def _wait(self) -> Callable[[], None] | None:
        """Wait until there is something to do, and say what; None when there is nothing more."""
        with self._changed:
            while not (self._stopping or self._over):
                name = min(self._due, key=self._due.__getitem__)
                left = self._due[name] - time.monotonic()
                if left <= 0:
                    return self._renew_session if name == _SESSION else partial(self._renew, name)
                if self._sweeps:
                    now = self._sweeps.pop()
                    return partial(self._sweep, now)
                self._changed.wait(left)
        return None

    def _renew_session(self) -> None:
        now = time.monotonic()
        until = self._sent + self.ttl
        deadline = now + min(_RENEWAL, self.ttl / 3)
        if now < until:  # be back when there is a suspension to tell of
            deadline = min(deadline, until)
        try:
            sent, _ = renew_session(self._granting, deadline=deadline)
        except LineOver:
            self.lose("ZooKeeper says that its time is over")
        except LedgerClosed:
            raise
        except LedgerError as error:
            with self._changed:
                self._trouble = str(error)
                again = _PAUSE if error.retryable else self.ttl / 3
                self._due[_SESSION] = time.monotonic() + again
            self._tell(self._trouble)
        else:
            with self._changed:
                self._sent = max(sent, self._sent)
                self._trouble = ""
                self._due[_SESSION] = sent + self.ttl / 3
                if time.monotonic() >= until:  # somebody may have seen that, told or not
                    self._told = SessionState.SUSPENDED
            self._tell("")

    def _renew(self, name: str) -> None:
        with self._changed:
            self._due[name] = time.monotonic() + self.ttl / 3
        try:
            lease = leases.renew(self._granting, name, deadline=time.monotonic() + self.ttl / 3)
        except LineOver:
            self.lose("ZooKeeper says that its time is over")
        except LedgerClosed:
            raise
        except LedgerError as error:
            _log.debug("%s is renewed later: %s", name, error)
        else:
            with self._changed:
                if lease is not None:
                    self._due[name] = time.monotonic() + lease.ttl / 3
                    return
                del self._due[name], self._ttls[name]
            _log.warning("%s says that %s is over", self._granting.line.config, name)

    def _sweep(self, now: int) -> None:
        deadline = time.monotonic() + min(_SWEEP, self.ttl / 3)
        try:
            leases.sweep(self._granting, now, deadline=deadline)
        except LineOver:
            self.lose("ZooKeeper says that its time is over")
        except LedgerClosed:
            raise
        except LedgerError as error:
            _log.info("what is over stays until somebody else sweeps: %s", error)
