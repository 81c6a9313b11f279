"""The door of a store that one node of a job hosts: who knocks learns whether it is the right one,
before using it.

An address that was written down may be an earlier try's, and its port may be another program's by
now. So a node that read it knocks first: it sends a question that nobody has asked before, and only
who knows the secret of this one launch can answer it. The answer also says at which port the store
is. The door lives in the agent that hosts the store, and closes with it; a visitor that stays sees
at once when that happens.

What this is not: it keeps nobody out. The store behind it is torch's, which asks nobody who he is.
This module imports nothing but the standard library: a task, which has no torch, knocks too.
"""

from __future__ import annotations

import hmac
import re
import secrets
import select
import socket
import socketserver
import threading
import time
from contextlib import suppress

from llutil.system.addresses import socket_family

__all__ = ["Door", "Visit", "WrongDoorError", "knock", "new_secret"]

_QUESTION = re.compile(rb"llutil-door 1 ([0-9a-f]{32})\n")
_ANSWER = re.compile(rb"llutil-door 1 ([0-9a-f]{64}) (\d{1,5})\n")
_LONGEST = 128  # bytes of a line
_PATIENCE = 5.0  # seconds that a visitor has for its question
_SILENCE = 5  # seconds without a word from the other kernel after which it is asked for one
_UNANSWERED = 2  # such questions without an answer, until the visit is over: its host is gone


class WrongDoorError(Exception):
    """Somebody answers at the address, and it is not who left it."""


def new_secret() -> str:
    """The secret of one launch."""
    return secrets.token_hex(16)


class Door:
    """Answers at ``host``, on a port that the kernel chose, until ``close``: the store of
    ``secret`` is at ``store_port``.

    :raises OSError: ``host`` is no address of this machine.
    """

    def __init__(self, host: str, secret: str, store_port: int) -> None:
        self._server = _Server(host, secret, store_port)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="llutil-door"
        )
        self._thread.daemon = True
        self._thread.start()

    @property
    def visitors(self) -> int:
        """How many have come and not gone yet."""
        return len(self._server.visitors)

    def close(self) -> None:
        """Let nobody in any more, and show out who is there. Nothing to do if that was done."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_PATIENCE)
        self._server.server_close()
        self._server.show_out()


class Visit:
    """A connection to a door, kept for as long as the store behind it is used. ``store_port`` is
    the store's.
    """

    def __init__(self, connection: socket.socket, store_port: int) -> None:
        self.store_port = store_port
        self._connection = connection

    @property
    def over(self) -> bool:
        """Whether the door was closed, its process has ended, or its host does not answer any
        more.
        """
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(0))  # nothing is ever said on it: only its end can be read

    def close(self) -> None:
        """Go."""
        self._connection.close()


def knock(host: str, port: int, secret: str, seconds: float) -> Visit:
    """A visit to the door of ``secret`` at ``host``.

    :raises OSError: nobody answered within so many ``seconds``.
    :raises WrongDoorError: somebody else did.
    """
    deadline = time.monotonic() + seconds
    connection = socket.create_connection((host, port), timeout=seconds)
    try:
        question = secrets.token_hex(16)
        connection.sendall(f"llutil-door 1 {question}\n".encode())
        said = _line(connection, deadline)
        found = _ANSWER.fullmatch(said)
        if found is None or not hmac.compare_digest(
            found[1].decode(), _proof(secret, question, int(found[2]))
        ):
            raise WrongDoorError(
                f"what answers at {host} port {port} is not the node that left this address: it "
                f"said {said[:60]!r}"
            )
        _notice_silence(connection)
    except BaseException:
        connection.close()
        raise
    return Visit(connection, int(found[2]))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, secret: str, store_port: int) -> None:
        self.address_family = socket_family(host)
        self._secret = secret
        self._store_port = store_port
        self._lock = threading.Lock()  # guards the next two
        self.visitors: set[socket.socket] = set()
        self._closed = False
        super().__init__((host, 0), _Visitor)

    def answer(self, question: str) -> bytes:
        proof = _proof(self._secret, question, self._store_port)
        return f"llutil-door 1 {proof} {self._store_port}\n".encode()

    def let_in(self, visitor: socket.socket) -> bool:
        with self._lock:
            if not self._closed:
                self.visitors.add(visitor)
            return not self._closed

    def forget(self, visitor: socket.socket) -> None:
        with self._lock:
            self.visitors.discard(visitor)

    def show_out(self) -> None:
        with self._lock:
            self._closed = True
            for visitor in self.visitors:
                with suppress(OSError):
                    visitor.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a visitor that went away in the middle is not worth the traceback that Python
        would print.
        """


class _Visitor(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        connection: socket.socket = self.request
        asked = _QUESTION.fullmatch(_line(connection, time.monotonic() + _PATIENCE))
        if asked is None or not self.server.let_in(connection):
            return
        try:
            connection.settimeout(None)
            connection.sendall(self.server.answer(asked[1].decode()))
            _notice_silence(connection)
            connection.recv(1)  # until either side goes
        finally:
            self.server.forget(connection)


def _proof(secret: str, question: str, store_port: int) -> str:
    return hmac.digest(secret.encode(), f"{question} {store_port}".encode(), "sha256").hex()


def _line(connection: socket.socket, deadline: float) -> bytes:
    """What the other side says, up to its newline, or all that it said before it went or said too
    much.

    :raises TimeoutError: it did not finish by ``deadline``.
    """
    said = b""
    while not said.endswith(b"\n") and len(said) < _LONGEST:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it answers nothing")
        connection.settimeout(left)
        data = connection.recv(_LONGEST - len(said))
        if not data:
            break
        said += data
    return said


def _notice_silence(connection: socket.socket) -> None:
    """Have the kernel end ``connection`` when the other host is gone without a word; by itself it
    never would.
    """
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _UNANSWERED)
