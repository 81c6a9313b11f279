"""``ServerConnection``: one connection to the server, from its first byte on.

Before its other side has proved that it knows the secret, only a few hundred bytes of it are read,
and only for seconds. Used by the server's thread only. This module may import the standard library
and this folder.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Protocol

from llutil.ledgers.served import handshake, messages
from llutil.ledgers.served.handshake import Accepting, Frames, RefusedError
from llutil.ledgers.served.messages import Hello, Request

__all__ = ["Client", "Server", "ServerConnection"]

_log = logging.getLogger(__name__)

_PROVED = 5.0
"""Seconds that a client has to prove itself and to say who it is."""


class Client(Protocol):
    """The client that a connection is of."""

    def hear(self, request: Request) -> None:
        """It asks for something."""

    def disconnect(self, connection: ServerConnection) -> None:
        """That connection is lost."""


class Server(Protocol):
    """What a connection needs of its server."""

    loop: asyncio.AbstractEventLoop
    secret: str

    def let_in(self, stranger: ServerConnection) -> None:
        """Somebody has come."""

    def welcome(self, hello: Hello, connection: ServerConnection) -> Client:
        """The client that says so.

        :raises RefusedError: it is none of this ledger's.
        """

    def known(self, stranger: ServerConnection) -> None:
        """It has said who it is, or is gone."""

    def has_room(self, client: Client) -> None:
        """The client reads again what it is sent."""


class ServerConnection(asyncio.Protocol):
    """One connection, from the first byte on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._frames = Frames(handshake.MAX_UNPROVED)
        self._accepting = Accepting(server.secret)
        self._client: Client | None = None
        self._limit: asyncio.TimerHandle | None = None
        self.is_full = False
        """Whether the other side does not read what it was sent."""

    @property
    def fd(self) -> int:
        """The number of its socket; -1 if it has none any more."""
        return -1 if self._transport is None else _socket_of(self._transport).fileno()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has been accepted."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        handshake.watch_connection(_socket_of(transport))
        self._server.let_in(self)
        self._limit = self._server.loop.call_later(_PROVED, self.cut_off)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """It has ended."""
        self._forget_stranger()
        if self._client is not None:
            self._client.disconnect(self)

    def pause_writing(self) -> None:
        """The other side does not read."""
        self.is_full = True

    def resume_writing(self) -> None:
        """The other side reads again."""
        self.is_full = False
        if self._client is not None:
            self._server.has_room(self._client)

    def data_received(self, data: bytes) -> None:
        """The other side has sent this."""
        try:
            for body in self._frames.cut(data):
                if self._transport is None or self._transport.is_closing():
                    return
                self._hear(body)
        except (ValueError, RefusedError) as error:
            if self._client is not None:
                _log.warning("a client of the served ledger is cut off: %s", error)
            elif isinstance(error, RefusedError):
                self._write(Accepting.refusal(str(error)))
            self.close()

    def _hear(self, body: bytes) -> None:
        if self._client is not None:
            self._client.hear(messages.decode(body, Request))
        elif not self._accepting.done:
            self._write(self._accepting.answer(body))
            if self._accepting.done:
                self._frames.limit = handshake.MAX_MESSAGE
        else:
            hello = messages.decode(body, Hello)
            self._client = self._server.welcome(hello, self)
            self._forget_stranger()

    def _forget_stranger(self) -> None:
        self._server.known(self)
        if self._limit is not None:
            self._limit.cancel()

    # What the server calls.

    def send(self, body: bytes) -> None:
        """Send a message, sooner or later."""
        try:
            self._write(handshake.frame(body))
        except ValueError as error:
            _log.warning("a client of the served ledger is cut off: %s", error)
            self.cut_off()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """End the connection, after what was sent."""
        if self._transport is not None:
            self._transport.close()

    def cut_off(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()


def _socket_of(transport: asyncio.Transport) -> socket.socket:
    return transport.get_extra_info("socket")  # type: ignore[no-any-return]
