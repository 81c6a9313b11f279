"""One ZooKeeper session with deadlines, kept by kazoo: ``KazooSession``.

It is the one boundary where kazoo's errors about connections end.

kazoo keeps a ZooKeeper session and its connection, moving from server to server. A request is sent
when there is a connection, and is waited for until its deadline, or until that connection is lost;
then ``trying`` runs the whole act again, told that what it did before may have been applied. What
ZooKeeper says of nodes (there is none, there is one) is passed on as kazoo's errors, and stays in
this folder.

kazoo has three threads for a client, which end with ``KazooSession.close``. Of ours this module
imports ``llutil.ledgers``.
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

_GOODBYE = 1.0
"""Seconds for a server to take leave of us."""

T = TypeVar("T")


class KazooSessionOver(SessionLost):
    """ZooKeeper says that the session is over."""


class _Interrupted(LedgerUnavailable):
    """The connection was lost before the answer came."""


class KazooSession(ProcessOwned):
    """A ZooKeeper session of ``timeout`` seconds: a new one, or the one of ``identity`` (its id and
    password).

    ``on_state`` is called from kazoo's thread whenever the connection comes or goes. It must take
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
        self._kept = identity is not None
        self._on_state = on_state
        self._kazoo_log = KazooLog()
        self._client = make_client(config, timeout, identity, self._kazoo_log)
        self._connected = threading.Event()
        self._ended: type[KazooSessionOver | LedgerRefused] | None = None
        self._client.add_listener(self._listen)
        self._client.start_async()

    def _listen(self, state: KazooState) -> None:
        """In kazoo's thread: note what became of the connection."""
        if state == KazooState.CONNECTED:
            self._connected.set()
        else:
            self._connected.clear()
        keeper = self._client.client_state
        if keeper == KeeperState.EXPIRED_SESSION and self._kept:
            self._ended = (
                KazooSessionOver  # kazoo goes on with another session, which is of no use to us
            )
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

    def trying(self, what: str, act: Callable[[bool], T], *, deadline: float) -> T:
        """Do ``act`` until it was done without a lost connection; it is told whether an earlier try
        may count.

        :raises LedgerUnavailable: not by ``deadline``.
        :raises KazooSessionOver: the session is over.
        :raises LedgerRefused: the same again cannot help.
        """
        self.check()
        began = time.monotonic()
        if began >= deadline:
            raise LedgerUnavailable(f"{what}: the deadline had passed; nothing was sent")
        doubtful = False
        try:
            while True:
                try:
                    return act(doubtful)
                except _Interrupted:
                    doubtful = True
        except zk.NoAuthError as error:
            raise LedgerRefused(f"{what}: {self._who()} may not do this; {_NO_AUTH}") from error
        except zk.NoChildrenForEphemeralsError as error:
            raise LedgerRefused(
                f"{what}: something else keeps an ephemeral node where the folder of this "
                "namespace should be; use another namespace"
            ) from error
        except (
            zk.BadArgumentsError,
            zk.MarshallingError,
            zk.UnimplementedError,
            zk.InvalidACLError,
        ) as error:
            raise LedgerRefused(
                f"{what}: {self.config} does not take it: {type(error).__name__}"
            ) from error
        except LedgerUnavailable as error:
            waited = time.monotonic() - began
            raise LedgerUnavailable(
                f"{what}: no usable answer in {waited:.1f} s; {error}"
            ) from error

    def _who(self) -> str:
        if self.config.user:
            return f"the user {self.config.user!r} with this password"
        return "an anonymous client"

    def ask(self, send: Callable[[Any], Any], *, deadline: float) -> Any:
        """The answer to one request. Within ``trying``."""
        self.wait_for_connection(deadline)
        return self.answer(send(self._client), deadline=deadline)

    def send(self, send: Callable[[Any], Any], *, deadline: float) -> Any:
        """Send a request, for ``answer`` to take what comes of it. Within ``trying``."""
        self.wait_for_connection(deadline)
        return send(self._client)

    def answer(self, result: Any, *, deadline: float) -> Any:
        """What came of a request that was sent. Within ``trying``."""
        try:
            return result.get(timeout=max(0.0, deadline - time.monotonic()))
        except KazooTimeoutError:
            raise LedgerUnavailable(
                f"{self.config}: no answer in time; it is frozen, cut off or overloaded"
            ) from None
        except zk.ConnectionClosedError as error:
            self.check()
            raise _Interrupted(str(error)) from error
        except zk.SessionExpiredError as error:
            if self._kept:
                self._ended = KazooSessionOver
                raise KazooSessionOver(f"{self.config} says that its time is over") from error
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
                f"{self.config} does not accept the authentication of {self._who()}"
            ) from error

    def wait_for_connection(self, deadline: float) -> None:
        """Wait until a request could be sent at once. Within ``trying``."""
        while True:
            self.check()
            if self._ended is KazooSessionOver:
                raise KazooSessionOver(f"{self.config} says that its time is over")
            if self._ended is not None:
                raise LedgerRefused(
                    f"{self.config} does not accept the authentication of {self._who()}"
                )
            left = deadline - time.monotonic()
            if left <= 0:
                trouble = self._kazoo_log.trouble or (
                    "no answer in time; it is frozen, cut off or overloaded"
                )
                raise LedgerUnavailable(f"{self.config}: {trouble}")
            # In short bits, since nothing wakes this when the session is closed.
            if self._connected.wait(min(left, 0.1)):
                return

    def close(self, *, deadline: float) -> bool:
        """End the session if a server is there to hear of it, and in any case kazoo's threads.

        Says whether a server was there until then, so that it took note. In a forked child it does
        nothing: they are the parent's.
        """
        if self.inherited or self.closing.is_set():
            return False
        self.closing.set()
        connected = self.is_connected and self._ended is None
        thread = threading.Thread(target=self._stop, name="llutil-goodbye", daemon=True)
        thread.start()
        thread.join(min(_GOODBYE, max(0.0, deadline - time.monotonic())))
        if not thread.is_alive():
            return connected
        # kazoo would wait for as long as the session's time; without its socket it does not.
        # kazoo has no public way to be closed at once.
        sock = self._client._connection._socket  # noqa: SLF001
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                _log.debug("closing the connection to %s: %s", self.config, error)
        thread.join(max(0.0, deadline - time.monotonic()))
        return False

    def _stop(self) -> None:
        try:
            self._client.stop()
            self._client.close()
        except Exception as error:  # noqa: BLE001 - the thread's edge
            _log.debug("closing kazoo's client of %s", self.config, exc_info=error)


_NO_AUTH = (
    "its nodes belong to somebody else: correct 'user' and 'password', or use another namespace"
)
