"""``KazooSession``: a ZooKeeper session that kazoo keeps, and requests with deadlines on it.

kazoo's errors about connections do not leave this module.

kazoo keeps the session and its connection, and moves from server to server. A request is sent when
there is a connection. It waits for its answer until its deadline, or until that connection is lost.
In the second case ``retry`` runs the whole function again, and says that the first run may have
been applied. What ZooKeeper says of znodes (there is none, there is one) is raised as kazoo's
errors, which stay in this folder.

kazoo has three threads for a client; ``KazooSession.close`` ends them. This module may import
kazoo, ``llutil.ledgers`` and this folder.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from kazoo import exceptions as zk
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState, KeeperState

from llutil.ledgers.errors import LedgerRefused, LedgerUnavailable, SessionLost
from llutil.ledgers.process_owned import ProcessOwned
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_client import KazooLog, make_client

__all__ = ["KazooSession", "KazooSessionOver"]

_log = logging.getLogger(__name__)

_CLOSE_GRACE = 1.0
"""Seconds for a server to answer that it ended the session."""

T = TypeVar("T")


class KazooSessionOver(SessionLost):
    """ZooKeeper says that the session is over."""


class _Interrupted(LedgerUnavailable):
    """The connection was lost before the answer came."""


class KazooSession(ProcessOwned):
    """A ZooKeeper session of ``timeout`` seconds: a new one, or the one of ``identity`` (id,
    password).

    ``on_state`` is called from kazoo's thread whenever the connection is made or lost. It must take
    no lock that is held during a call.
    """

    def __init__(
        self,
        config: ZooKeeperConfig,
        timeout: float,
        on_state: Callable[[], None],
        *,
        identity: tuple[int, bytes] | None = None,
    ) -> None:
        super().__init__(config)
        self.config = config
        self._has_identity = identity is not None
        self._on_state = on_state
        self._kazoo_log = KazooLog()
        self._client = make_client(config, timeout, identity, self._kazoo_log)
        self._connected = threading.Event()
        self._ended: type[KazooSessionOver | LedgerRefused] | None = None
        self._client.add_listener(self._on_kazoo_state)
        self._client.start_async()

    def _on_kazoo_state(self, state: KazooState) -> None:
        """Called in kazoo's thread: note the state of the connection."""
        if state == KazooState.CONNECTED:
            self._connected.set()
        else:
            self._connected.clear()
        keeper = self._client.client_state
        if keeper == KeeperState.EXPIRED_SESSION and self._has_identity:
            # kazoo now opens another session, but our records belonged to this one.
            self._ended = KazooSessionOver
        elif keeper == KeeperState.AUTH_FAILED:
            self._ended = LedgerRefused
        self._on_state()

    @property
    def is_over(self) -> bool:
        """Whether ZooKeeper has said that the session is over."""
        return self._ended is KazooSessionOver

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connected.is_set()

    def retry(self, what: str, act: Callable[[bool], T], *, deadline: float) -> T:
        """Call ``act`` until it ends without a lost connection. Its argument says whether an
        earlier run may have been applied. ``what`` names the action in errors.

        :raises LedgerUnavailable: it did not succeed by ``deadline``.
        :raises KazooSessionOver: the session is over.
        :raises LedgerRefused: a retry cannot help.
        """
        self.check()
        began = time.monotonic()
        if began >= deadline:
            raise LedgerUnavailable(f"{what}: the deadline had passed; nothing was sent")
        interruption = ""
        try:
            while True:
                try:
                    return act(bool(interruption))
                except _Interrupted as error:
                    interruption = f" (before that: {error})"
        except zk.NoAuthError as error:
            raise LedgerRefused(
                f"{what}: {self._user_text()} may not do this; {_NO_AUTH}"
            ) from error
        except zk.NoChildrenForEphemeralsError as error:
            raise LedgerRefused(
                f"{what}: other software has an ephemeral znode where the folder of this "
                "namespace should be; use another namespace"
            ) from error
        except (
            zk.BadArgumentsError,
            zk.MarshallingError,
            zk.UnimplementedError,
            zk.InvalidACLError,
        ) as error:
            raise LedgerRefused(
                f"{what}: {self.config} refuses the request: {type(error).__name__}"
            ) from error
        except LedgerUnavailable as error:
            waited = time.monotonic() - began
            raise LedgerUnavailable(
                f"{what}: no usable answer in {waited:.1f} s; {error}{interruption}"
            ) from error

    def _user_text(self) -> str:
        if self.config.user:
            return f"the user {self.config.user!r} with this password"
        return "an anonymous client"

    def ask(self, send: Callable[[Any], Any], *, deadline: float) -> Any:
        """Send one request and return its answer. For use within ``retry``."""
        self.wait_for_connection(deadline)
        return self.answer(send(self._client), deadline=deadline)

    def send(self, send: Callable[[Any], Any], *, deadline: float) -> Any:
        """Send a request; ``answer`` takes its result. For use within ``retry``."""
        self.wait_for_connection(deadline)
        return send(self._client)

    def answer(self, result: Any, *, deadline: float) -> Any:
        """Wait for the answer to a request that ``send`` sent. For use within ``retry``."""
        try:
            return result.get(timeout=max(0.0, deadline - time.monotonic()))
        except KazooTimeoutError:
            raise LedgerUnavailable(
                f"{self.config}: no answer in time; it is frozen, cut off or overloaded"
            ) from None
        except zk.ConnectionClosedError as error:
            self.check()
            raise _Interrupted(str(error) or type(error).__name__) from error
        except zk.SessionExpiredError as error:
            if self._has_identity:
                self._ended = KazooSessionOver
                raise KazooSessionOver(f"{self.config} says that the session is over") from error
            raise _Interrupted("the connection's own session was over") from error
        except (
            zk.ConnectionLoss,
            zk.OperationTimeoutError,
            zk.SessionMovedError,
            zk.RequestTimeoutError,
            zk.ThrottledOpError,
        ) as error:
            raise _Interrupted(type(error).__name__) from error
        except zk.AuthFailedError as error:
            raise LedgerRefused(
                f"{self.config} does not accept the authentication of {self._user_text()}"
            ) from error

    def wait_for_connection(self, deadline: float) -> None:
        """Wait until there is a connection. For use within ``retry``."""
        while True:
            self.check()
            if self._ended is KazooSessionOver:
                raise KazooSessionOver(f"{self.config} says that the session is over")
            if self._ended is not None:
                raise LedgerRefused(
                    f"{self.config} does not accept the authentication of {self._user_text()}"
                )
            left = deadline - time.monotonic()
            if left <= 0:
                reason = self._kazoo_log.last_warning or (
                    "no answer in time; it is frozen, cut off or overloaded"
                )
                raise LedgerUnavailable(f"{self.config}: {reason}")
            # Wait in short steps, because nothing wakes this wait when the session is closed.
            if self._connected.wait(min(left, 0.1)):
                return

    def close(self, *, deadline: float) -> bool:
        """End the session if a server is connected, and end kazoo's threads in any case.

        Returns whether a server ended the session. In a forked child this does nothing, because the
        session belongs to the parent.
        """
        if self.inherited or self.closing.is_set():
            return False
        self.closing.set()
        connected = self.is_connected and self._ended is None
        thread = threading.Thread(target=self._stop, name="llutil-close", daemon=True)
        thread.start()
        thread.join(min(_CLOSE_GRACE, max(0.0, deadline - time.monotonic())))
        if not thread.is_alive():
            return connected
        # kazoo would wait as long as the session's timeout. A closed socket ends that wait.
        self._shut_down()
        thread.join(max(0.0, deadline - time.monotonic()))
        return False

    def cut_off(self, until: float) -> None:
        """Lose the connection, and make none before ``until`` (``time.monotonic()``)."""
        self._client.handler.cut_until = until
        self._shut_down()

    def _shut_down(self) -> None:
        # kazoo has no public way to close at once.
        sock = self._client._connection._socket  # noqa: SLF001
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                _log.debug("closing the connection to %s: %s", self.config, error)

    def _stop(self) -> None:
        try:
            self._client.stop()
            self._client.close()
        except Exception as error:  # noqa: BLE001 - the thread's edge
            _log.debug("closing kazoo's client of %s", self.config, exc_info=error)


_NO_AUTH = (
    "the znodes there belong to another user: correct 'user' and 'password', or use another "
    "namespace"
)
