"""``LedgerServer``: the served ledger's store, behind a socket, in a thread of its own.

One thread does everything: it accepts, reads, answers and ends leases that nobody renews. Strangers
cost no thread: who has not proved that it knows the secret within seconds is cut off, and so is the
one that has been silent for longest when there are many. A client that does not read is sent
nothing more until it does; then it gets the latest state and no history.

Leases are counted on this process's clock. If this process was itself stopped or had no processor,
no renewal was heard meanwhile, and all leases get that time in addition.

This module may import the standard library, and the store in memory and this folder.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from contextlib import suppress
from typing import Any

from llutil.errors import ConfigError
from llutil.ledgers.memory_store import MemoryStore
from llutil.ledgers.served import messages
from llutil.ledgers.served.client_state import ClientState
from llutil.ledgers.served.handshake import RefusedError
from llutil.ledgers.served.job_server import JobServer
from llutil.ledgers.served.listening_socket import listening_socket
from llutil.ledgers.served.message_bodies import bodies
from llutil.ledgers.served.messages import FromServer, Hello, Request, Welcome
from llutil.ledgers.served.server_connection import Client, ServerConnection

__all__ = ["LedgerServer"]

_log = logging.getLogger(__name__)

# All durations are in seconds.
_MOST_STRANGERS = 256
"""Connections of which that is not known yet."""
_TICK = 0.25
"""Between two looks for leases that are over."""
_STOPPED = 4 * _TICK
"""A tick that comes so late means that this process was stopped."""
_CLIENT_KEPT = 300.0
"""What is known of a client outlives its connection for so long, and while a session of it lives.
"""
_CLOSED = 5.0
"""By then the thread has ended."""


class LedgerServer(JobServer):
    """Serves a ledger at ``host`` until ``close``. An empty ``host`` means all addresses of this
    machine; port 0 lets the kernel choose.

    ``run_id``: the job whose ledger it is; if it is given, clients of other jobs are refused.

    :raises OSError: ``host`` is no address of this machine, or the port is taken.
    """

    def __init__(self, host: str, port: int, *, secret: str = "", run_id: str = "") -> None:
        self._socket = listening_socket(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.name = secrets.token_hex(16)
        """Tells it from every other server, also at the same address."""
        self.secret = secret
        self.run_id = run_id
        # What a client remembers of another server's store must mean nothing in this one.
        self.store = MemoryStore(first=secrets.randbits(48))
        self.clients: dict[str, _Client] = {}
        self.strangers: dict[ServerConnection, None] = {}
        """Who has not said yet who it is; who has been there for longest first."""
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_on_loop_error)
        self._changed: dict[_Client, None] = {}
        self._closing: tuple[float, str] | None = None
        """How long to linger, and what to say then, once it is to be closed."""
        self._close_asked = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="llutil-ledger", daemon=True)
        self._thread.start()

    def close(self, *, goodbye: str = "", linger: float = 0.0) -> None:
        """Stop serving: see ``JobServer``. A second call does nothing."""
        if self._closing is not None:
            return
        self._closing = linger, goodbye or "the node that serves the ledger has ended"
        with suppress(RuntimeError):  # the thread has failed, and its loop is closed
            self.loop.call_soon_threadsafe(self._close_asked.set)
        self._thread.join(linger + _CLOSED)

    def fds(self) -> set[int]:
        """The sockets of the port and of all clients."""
        connections = {one.connection for one in list(self.clients.values())}
        fds = {one.fd for one in [*connections, *self.strangers] if one is not None}
        return (fds | {self._socket.fileno()}) - {-1}

    # -- the thread

    def _run(self) -> None:
        try:
            self.loop.run_until_complete(self._serve())
        except Exception:  # noqa: BLE001 - the thread's edge
            _log.exception("the ledger is not served any more")
        finally:
            self._socket.close()
            self.loop.close()

    async def _serve(self) -> None:
        server = await self.loop.create_server(lambda: ServerConnection(self), sock=self._socket)
        ticks = self.loop.create_task(self._tick())
        await self._close_asked.wait()
        assert self._closing is not None
        linger, goodbye = self._closing
        deadline = self.loop.time() + linger
        while self.loop.time() < deadline and any(one.has_session for one in self.clients.values()):
            await asyncio.sleep(_TICK / 5)
        ticks.cancel()
        # First, because asyncio leaves the socket of whoever it is just letting in when it closes.
        self.loop.remove_reader(self._socket)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        server.close()
        for client in self.clients.values():
            client.end(messages.encode(FromServer(goodbye=goodbye)))
        for stranger in list(self.strangers):
            stranger.cut_off()
        await asyncio.sleep(0)  # connections that were cut off end

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + _TICK
            await asyncio.sleep(_TICK)
            late = time.monotonic() - due
            if late > _STOPPED:
                self.store.extend(late)
                await asyncio.sleep(0)  # what has been sent meanwhile is read first
            self.store.expire()
            self._forget_old_clients()

    def _forget_old_clients(self) -> None:
        now = time.monotonic()
        for name, client in list(self.clients.items()):
            away = 0.0 if client.away_since is None else now - client.away_since
            if away > _CLIENT_KEPT and not client.has_session:
                client.forget()
                del self.clients[name]

    # -- what connections call

    def let_in(self, connection: ServerConnection) -> None:
        """A stranger has come. Without room for it, the oldest one goes."""
        if len(self.strangers) >= _MOST_STRANGERS:
            next(iter(self.strangers)).cut_off()
        self.strangers[connection] = None

    def welcome(self, hello: Hello, connection: ServerConnection) -> _Client:
        """The client that ``connection`` is of, from now on.

        :raises RefusedError: it is none of this ledger's.
        """
        if hello.run_id and self.run_id and hello.run_id != self.run_id:
            raise RefusedError(
                f"it is that of run {self.run_id!r} and not of {hello.run_id!r}; each job needs a "
                "port of its own"
            )
        known = hello.client in self.clients
        if not known:
            try:
                self.clients[hello.client] = _Client(self, hello.namespace)
            except ConfigError as error:
                raise RefusedError(str(error)) from None
        client = self.clients[hello.client]
        client.connect(connection)
        connection.send(messages.encode(Welcome(server=self.name, known=known)))
        return client

    def known(self, stranger: ServerConnection) -> None:
        """It has said who it is, or is gone."""
        self.strangers.pop(stranger, None)

    def has_room(self, client: Client) -> None:
        """The client reads again what it is sent."""
        assert isinstance(client, _Client)
        self.has_changed(client)

    def has_changed(self, client: _Client) -> None:
        """Tell the client what has changed, once all that is at hand has been done."""
        if not self._changed:
            self.loop.call_soon(self._tell_changes)
        self._changed[client] = None

    def _tell_changes(self) -> None:
        clients, self._changed = self._changed, {}
        for client in clients:
            client.tell_changes()


class _Client:
    """A client, connected or not."""

    def __init__(self, server: LedgerServer, namespace: str) -> None:
        self._state = ClientState(server.store, namespace, lambda: server.has_changed(self))
        self.connection: ServerConnection | None = None
        self.away_since: float | None = None

    @property
    def has_session(self) -> bool:
        return self._state.has_session

    def connect(self, connection: ServerConnection) -> None:
        """It is at ``connection`` now, and at no other one any more."""
        if self.connection is not None:
            self.connection.cut_off()
            self._state.disconnect()
        self.connection, self.away_since = connection, None

    def disconnect(self, connection: ServerConnection) -> None:
        if self.connection is connection:
            self.connection, self.away_since = None, time.monotonic()
            self._state.disconnect()

    def hear(self, request: Request) -> None:
        self._send(self._state.answer(request))

    def tell_changes(self) -> None:
        if self.connection is None or self.connection.is_full:
            return  # asked again when it is connected, or has room
        if changes := self._state.changes():
            self._send(bodies(FromServer(changes=changes)))

    def _send(self, answer: tuple[bytes, ...]) -> None:
        for body in answer:
            if self.connection is not None:
                self.connection.send(body)

    def end(self, farewell: bytes) -> None:
        if self.connection is not None:
            self.connection.send(farewell)
            self.connection.cut_off()

    def forget(self) -> None:
        self._state.forget()


def _on_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong with one connection; asyncio has ended that, or tries again."""
    _log.warning("the served ledger: %s (%r)", context["message"], context.get("exception"))
