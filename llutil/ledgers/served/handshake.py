"""The frames on a connection to a served ledger, and how both sides prove that they know its
secret.

A frame is four bytes of length, the most significant one first, and so many bytes of JSON. A
connection begins with four frames::

    client: {"llutil_ledger": VERSION, "nonce": ...}
    server: {"llutil_ledger": VERSION, "nonce": ...}
    client: {"proof": ...}
    server: {"proof": ...}

A proof is an HMAC, with the secret as its key, of both nonces and of the side that proves. So
neither side learns the secret, no proof can be used twice or by the other side, and the address of
a server that has gone leads nobody to whoever listens there now. The server speaks first of what it
knows, and only to a client that has proved itself. In place of a frame it may send ``{"refused":
why}``, and close.

This module may import nothing but the standard library: a guardian, and a task of Airflow's, have
no more.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

__all__ = [
    "MAX_MESSAGE",
    "MAX_UNPROVED",
    "VERSION",
    "Accepting",
    "Frames",
    "HandshakeError",
    "RefusedError",
    "WrongServerError",
    "authenticate",
    "connect",
    "frame",
    "heard",
    "knock",
    "read_frame",
    "watch_connection",
]

VERSION = 1
"""Increased when a message changes in such a way that an older client or server misreads it."""

MAX_MESSAGE = 1 << 24
"""Bytes of a message between those who know the secret."""

MAX_UNPROVED = 512
"""Bytes of a message before that."""

_MAX_HEARD = 1 << 12
"""Bytes of a message that a client reads before that."""
_MAX_WHY = 512
"""Characters of the reason for a refusal; JSON may take six bytes for each."""

_NONCE = 32
_LENGTH = 4
_CHUNK = 1 << 16
# Seconds without a word from the other kernel after which it is asked for one, and how often.
_IDLE, _PROBES = 5, 2
# Milliseconds that the other kernel may leave what was sent without an answer.
_UNACKNOWLEDGED = 10_000


class HandshakeError(Exception):
    """The connection leads to no ledger that this side can use."""


class WrongServerError(HandshakeError):
    """Who answers does not know the secret, or is no ledger at all."""


class RefusedError(HandshakeError):
    """The server refuses this client, and says why."""


def frame(body: bytes) -> bytes:
    """``body`` with its length.

    :raises ValueError: it is longer than any message may be.
    """
    if len(body) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(body)} bytes; at most {MAX_MESSAGE} are sent")
    return len(body).to_bytes(_LENGTH, "big") + body


class Frames:
    """Cuts what is received into frames. ``limit`` is the length that a frame may have."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self.limit = limit
        self._received = bytearray()

    def cut(self, data: bytes) -> Iterator[bytes]:
        """The frames that are complete with ``data``.

        :raises ValueError: a frame is longer than ``limit``. Nothing of it is kept.
        """
        self._received += data
        while len(self._received) >= _LENGTH:
            length = int.from_bytes(self._received[:_LENGTH], "big")
            if length > self.limit:
                self._received.clear()
                raise ValueError(f"a frame of {length} bytes; at most {self.limit} are read here")
            end = _LENGTH + length
            if len(self._received) < end:
                return
            body = bytes(self._received[_LENGTH:end])
            del self._received[:end]
            yield body


class Accepting:
    """The server's side of the handshake, without I/O."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._own = secrets.token_hex(_NONCE)
        self._theirs = ""
        self.done = False
        """Whether the client has proved itself."""

    def answer(self, body: bytes) -> bytes:
        """The frame that answers the client's.

        :raises RefusedError: the client is none. The text may be sent to it.
        """
        said = _object(body)
        if not self._theirs:
            version, nonce = said.get("llutil_ledger"), said.get("nonce")
            if not isinstance(nonce, str) or len(nonce) != 2 * _NONCE:
                raise RefusedError("this is a ledger of llutil, and was asked for something else")
            if version != VERSION:
                raise RefusedError(_versions(version))
            self._theirs = nonce
            return _encode({"llutil_ledger": VERSION, "nonce": self._own})
        proof = _proof(self._secret, "client", self._theirs, self._own)
        if not _equal(proof, said.get("proof")):
            raise RefusedError("it does not accept this node's secret; give all nodes the same")
        self.done = True
        return _encode({"proof": _proof(self._secret, "server", self._theirs, self._own)})

    @staticmethod
    def refusal(why: str) -> bytes:
        """The frame that tells a client why it is none."""
        return _encode({"refused": why[:_MAX_WHY]})


def connect(host: str, port: int, secret: str, deadline: float) -> socket.socket:
    """A connection to the ledger at ``host``, both sides of which know ``secret``. Its timeout is
    what is left until ``deadline`` (``time.monotonic()``).

    :raises OSError: nobody answers there in time.
    :raises RefusedError: the server refuses this client.
    :raises WrongServerError: who answers is no ledger that knows the secret.
    """
    connection = socket.create_connection((host, port), _left(deadline))
    try:
        authenticate(connection, f"{host} port {port}", secret, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def authenticate(connection: socket.socket, where: str, secret: str, deadline: float) -> None:
    """The client's side of the handshake. ``where`` names the server to people.

    :raises OSError, RefusedError, WrongServerError: as ``connect``.
    """
    own = secrets.token_hex(_NONCE)
    connection.sendall(_encode({"llutil_ledger": VERSION, "nonce": own}))
    greeting = heard(connection, where, deadline)
    theirs = greeting.get("nonce")
    if not isinstance(theirs, str):
        raise WrongServerError(f"what answers at {where} is no ledger of llutil")
    if greeting.get("llutil_ledger") != VERSION:
        raise RefusedError(_versions(greeting.get("llutil_ledger")))
    connection.sendall(_encode({"proof": _proof(secret, "client", own, theirs)}))
    said = heard(connection, where, deadline).get("proof")
    if not _equal(_proof(secret, "server", own, theirs), said):
        raise WrongServerError(f"what answers at {where} does not know this job's secret")


def knock(host: str, port: int, secret: str, seconds: float) -> None:
    """Find out whether the ledger of ``secret`` is served at ``host``.

    :raises OSError, RefusedError, WrongServerError: it is not; see ``connect``.
    """
    connect(host, port, secret, time.monotonic() + seconds).close()


def read_frame(connection: socket.socket, limit: int, deadline: float) -> bytes:
    """The next frame, read to its last byte and no further.

    :raises OSError: it does not come in time, or the connection ends.
    :raises ValueError: it is longer than ``limit``.
    """
    length = int.from_bytes(_read(connection, _LENGTH, deadline), "big")
    if length > limit:
        raise ValueError(f"a frame of {length} bytes; at most {limit} are read here")
    return _read(connection, length, deadline)


def watch_connection(connection: socket.socket) -> None:
    """Have the kernel end the connection when the other host is gone without a word; by itself it
    never would.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _IDLE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED)


def heard(connection: socket.socket, where: str, deadline: float) -> dict[str, Any]:
    """The next object that the server sends, until it takes requests.

    :raises OSError, RefusedError, WrongServerError: as ``connect``.
    """
    try:
        said = _object(read_frame(connection, _MAX_HEARD, deadline))
    except ValueError as error:
        raise WrongServerError(
            f"what answers at {where} is no ledger of llutil: it sent {error}"
        ) from None
    if "refused" in said:
        raise RefusedError(str(said["refused"])[:_MAX_WHY])
    return said


def _read(connection: socket.socket, length: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < length:
        connection.settimeout(_left(deadline))
        chunk = connection.recv(min(_CHUNK, length - len(data)))
        if not chunk:
            raise ConnectionResetError("it closed the connection")
        data += chunk
    return bytes(data)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it does not answer")
    return left


def _object(body: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(body), dict):
            return found
    return {}


def _encode(body: dict[str, Any]) -> bytes:
    return frame(json.dumps(body).encode())


def _proof(secret: str, side: str, client: str, server: str) -> str:
    text = f"llutil ledger {VERSION} {side} {client} {server}"
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex()


def _equal(proof: str, said: object) -> bool:
    return hmac.compare_digest(proof.encode(), str(said).encode(errors="replace"))


def _versions(other: object) -> str:
    return (
        f"one side speaks version {VERSION} of the ledger's protocol and the other version "
        f"{str(other)[:20]}: run the same version of this package on all nodes"
    )
