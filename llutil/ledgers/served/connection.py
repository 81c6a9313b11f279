"""A client's connection to a served ledger: calls with a deadline, and what the server tells.

One thread connects, reads, and connects again when the connection is lost. A call waits for its
answer in the caller's thread. A call whose connection was lost is sent again under its number on
the next one, where the same server gives the answer that it gave before: so no call is done twice.

When is the server gone? With ``ServedConfig.returns`` it never is: somebody may start it again. A
server of another name at the endpoint is another ledger: ``on_new_server`` is called. Without
``returns``, it has gone when it said goodbye, or when nobody was reached for a while. ``gone`` says
so, for good.

This module may import the standard library, msgspec, and the plain modules of ``llutil.ledgers``.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from llutil.ledgers.errors import LedgerClosed, LedgerGone, LedgerRefused, LedgerUnavailable
from llutil.ledgers.process_owned import ProcessOwned
from llutil.ledgers.served import handshake, messages
from llutil.ledgers.served.config import ServedConfig
from llutil.ledgers.served.dial import dial, dial_problem
from llutil.ledgers.served.handshake import Frames, HandshakeError, RefusedError
from llutil.ledgers.served.listener import Listener
from llutil.ledgers.served.messages import Call, FromServer, Hello, Welcome
from llutil.ledgers.served.pending_calls import Answer, PendingCall, PendingCalls

__all__ = ["Connection"]

_log = logging.getLogger(__name__)

# All durations are in seconds.
_PAUSE = (0.05, 0.5)
"""Between two attempts: first value and maximum."""
_REFUSED_PAUSE = 2.0
"""After the server has refused this client."""
_GONE_AFTER = 3.0
"""Nobody was reached for so long: a server that does not return has gone."""
_READ = 1 << 18


class Connection(ProcessOwned):
    """The connection of one ledger. Its thread starts with the first call."""

    def __init__(self, config: ServedConfig, listener: Listener) -> None:
        super().__init__(config)
        self.config = config
        self.gone = ""
        """Why the server has gone for good; empty if it has not."""
        self.refusal = ""
        """Why the server refuses this client; empty if it does not."""
        self._listener = listener
        self._hello = Hello(
            client=secrets.token_hex(16), namespace=config.namespace, run_id=config.run_id
        )
        self.server = ""
        """The name of the server that knows this client; empty before the first one."""
        self._lock = threading.Lock()
        """Guards the attributes below."""
        self._thread: threading.Thread | None = None
        self._pending = PendingCalls()
        self._socket: socket.socket | None = None
        """The connection, from its first attempt on."""
        self._connected = False
        self._unsent = bytearray()
        self._problem = ""
        """Why the last attempt to connect failed."""
        self._pause = 0.0
        """Before the next attempt. It grows until the server has said something to this client."""
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    # -- calls, from any thread

    def call(self, what: str, call: Call, kind: Any, *, deadline: float) -> Answer:
        """The server's answer to ``call``, of that ``kind``. ``what`` is shown in errors.

        :raises LedgerUnavailable: none came by ``deadline``. A write may have been applied.
        :raises LedgerGone: the server has gone for good.
        :raises LedgerRefused: the server refuses this client.
        :raises LedgerError, ConfigError: what the server answers.
        """
        pending = self._post(what, call, deadline)
        try:
            if not pending.wait(deadline):
                raise LedgerUnavailable(f"{what}: {self._unanswered()}")
        finally:
            with self._lock:
                self._pending.remove(pending)
        return pending.answer(kind)

    def post(self, call: Call) -> None:
        """Send ``call`` if there is a connection. Nobody waits for an answer."""
        with self._lock:
            if self._connected:
                self._send(self._pending.note(call))

    def _post(self, what: str, call: Call, deadline: float) -> PendingCall:
        self.check()  # a forked child may have inherited the lock as one that is held
        with self._lock:
            self.check()
            self._raise_if_useless(what)
            if time.monotonic() >= deadline:
                raise LedgerUnavailable(f"{what}: the deadline had passed; nothing was done")
            number, body = self._pending.request(call)
            if len(body) > (most := handshake.MAX_MESSAGE):
                text = f"a message of {len(body)} bytes; a served ledger takes {most} at most"
                raise LedgerRefused(f"{what}: {text}")
            pending = PendingCall(number=number, what=what, body=body)
            self._pending.add(pending)
            if self._connected:
                self._send(pending.note_sent())
            elif self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llutil-served", daemon=True)
                self._thread.start()
            return pending

    def _raise_if_useless(self, what: str) -> None:
        if self.gone:
            raise LedgerGone(f"{what}: {self.gone}")
        if self.refusal:
            raise LedgerRefused(f"{what}: {self.refusal}")

    def _send(self, body: bytes) -> None:
        """Send a frame, or keep what there is no room for. Called with the lock held."""
        assert self._socket is not None
        data = handshake.frame(body)
        if not self._unsent:
            with suppress(OSError):  # a connection that is lost is noticed where it is read
                data = data[self._socket.send(data, socket.MSG_NOSIGNAL) :]
        self._unsent += data
        if data:
            os.eventfd_write(self._wake_fd, 1)

    def _unanswered(self) -> str:
        if self._connected:
            return f"{self.config} did not answer in time; it is frozen, cut off or overloaded"
        why = f" ({self._problem})" if self._problem else ""
        return f"{self.config} could not be reached in time{why}"

    def close(self) -> bool:
        """End the thread and the connection; False if that was done, or in a forked child."""
        if self.inherited or self.closing.is_set():
            return False
        with self._lock:
            self.closing.set()
            self._pending.fail(LedgerClosed, f"{self.config} was closed meanwhile")
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        os.eventfd_write(self._wake_fd, 1)
        return True

    def join(self, deadline: float) -> None:
        """Wait for the thread's end; ``close`` was called."""
        if self._thread not in (None, threading.current_thread()):
            assert self._thread is not None
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                return
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1

    # -- the thread

    def _run(self) -> None:
        first, most = _PAUSE
        away_since = time.monotonic()
        try:
            while not self.closing.wait(self._pause) and not self.gone:
                self._pause = min(most, max(first, 2 * self._pause))
                try:
                    with self._open() as connection:
                        away_since = float("inf")
                        self._read(connection)
                except RefusedError as error:
                    self._refuse(f"{self.config} refuses this node: {error}")
                    self._pause = _REFUSED_PAUSE
                except (OSError, HandshakeError, ValueError) as error:
                    self._problem = dial_problem(error)
                    _log.debug("%s: %s", self.config, self._problem)
                away_since = min(away_since, time.monotonic())
                if not self.config.returns and time.monotonic() - away_since > _GONE_AFTER:
                    self._go(f"{self.config} has gone: {self._problem}")
        except LedgerClosed:
            return
        except Exception as error:  # noqa: BLE001 - the thread's edge: calls must not wait for it
            _log.exception("the connection to %s has ended", self.config)
            why = f"the thread of this connection failed: {type(error).__name__}: {error}"
            with self._lock:
                self._thread = None  # the next call starts another one
                self._pending.fail(LedgerUnavailable, why)

    @contextmanager
    def _open(self) -> Iterator[socket.socket]:
        """A connection whose server has welcomed this client.

        :raises OSError, HandshakeError, ValueError: there is none.
        """
        connection, welcome = dial(self.config, self._hello, self._use)
        try:
            self._take_up(connection, welcome)
            yield connection
        finally:
            with self._lock:
                self._connected, self._socket = False, None
                self._unsent.clear()
            connection.close()

    def _use(self, connection: socket.socket) -> None:
        """``close`` shuts this socket down from now on."""
        with self._lock:
            self._socket = connection
            self.check()

    def _take_up(self, connection: socket.socket, welcome: Welcome) -> None:
        """Go on where the last connection ended."""
        before, self.server = self.server, welcome.server
        other = bool(before) and not (welcome.known and welcome.server == before)
        if other:
            away = "this node was away" if welcome.server == before else "it was started again"
            why = f"{self.config} knows nothing of this node any more: {away}"
            with self._lock:
                self._pending.fail(LedgerUnavailable, why, sent_only=True)
            self._listener.on_new_server(why)
        connection.settimeout(None)
        connection.setblocking(False)
        refused, self.refusal = self.refusal, ""
        with self._lock:
            self._connected = True
            for pending in self._pending:
                self._send(pending.note_sent())
        if refused:
            self._listener.on_gone()
        self._listener.on_connected()

    def _read(self, connection: socket.socket) -> None:
        """Read until the connection is lost.

        :raises OSError, ValueError: it is.
        """
        frames = Frames()
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        while True:
            poll.register(connection, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            ready = dict(poll.poll())
            self.check()
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            events = ready.get(connection.fileno(), 0)
            if events & select.POLLOUT:
                with self._lock:
                    del self._unsent[: connection.send(self._unsent, socket.MSG_NOSIGNAL)]
            if events & ~select.POLLOUT:
                data = connection.recv(_READ)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                for body in frames.cut(data):
                    self._hear(messages.decode(body, FromServer))
            if self.gone:
                return

    def _hear(self, message: FromServer) -> None:
        self._pause = _PAUSE[0]
        if message.goodbye:
            self._problem = message.goodbye
            if not self.config.returns:
                self._go(f"{self.config} has gone: {message.goodbye}")
            return
        if message.changes:
            self._listener.on_changes(message.changes)
        if message.number:
            with self._lock:
                pending = self._pending.get(message.number)
            if pending is not None:
                pending.finish(message)

    def _go(self, why: str) -> None:
        """The server has gone for good."""
        with self._lock:
            self.gone = why
            self._pending.fail(LedgerGone, why)
        self._listener.on_gone()

    def _refuse(self, why: str) -> None:
        with self._lock:
            self.refusal = why
            self._pending.fail(LedgerRefused, why)
        self._listener.on_gone()
