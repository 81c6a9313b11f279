"""ZooKeeper's session handshake, with nothing but the standard library. It opens a session, ends
one, and finds out what listens at an endpoint.

kazoo keeps a session. But it does not tell the time that the server grants (it keeps the time that
was asked for), nor why a connection fails. And it cannot end a session from another process: that
takes a handshake with the session's id and password. A guardian does that, without site-packages.
So sessions are opened here and then given to kazoo.

The bytes are those of ZooKeeper's ``ConnectRequest``, ``ConnectResponse`` and ``RequestHeader``
(3.4 and newer). This module may import the standard library and plain modules of ``llutil``. It
starts no thread.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llutil.backends.endpoints import Endpoint, parse_endpoints
from llutil.ledgers.credentials import client_context
from llutil.ledgers.errors import LedgerRefused, LedgerUnavailable
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.zookeeper.config import ZooKeeperConfig

__all__ = ["GrantedSession", "end_session", "open_session", "perform", "revocation"]

# Seconds for one endpoint, at most.
_ENDPOINT_TIMEOUT = 2.0
# Part of the time until the deadline that one endpoint may use. The rest is for a second connection
# that finds out whether it speaks HTTP.
_ENDPOINT_SHARE = 0.7
# Seconds between two attempts at all endpoints.
_PAUSE = 0.1
# Bytes of an answer that are read.
_MAX_ANSWER = 1 << 16
# Protocol, last zxid, timeout in ms, session id, length of the password, password, read-only.
_REQUEST = struct.Struct(">iqiqi16s?")
# Protocol, timeout in ms, session id, length of the password, password.
_ANSWER = struct.Struct(">iiqi16s")
# xid, and the type closeSession.
_CLOSE_REQUEST = struct.pack(">ii", 1, -11)
_NO_PASSWORD = bytes(16)
_NO_ZOOKEEPER = "what listens there is not a ZooKeeper; correct the host and port"
_FILES = ("cacert", "cert", "key")
# X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH.
_HOST_MISMATCH = (62, 64)
_UNEXPECTED_END = "UNEXPECTED_EOF_WHILE_READING"


class _NotZooKeeper(Exception):
    """The server is not a ZooKeeper, or not one of the expected kind."""


@dataclass(frozen=True, slots=True)
class GrantedSession:
    """A session. ``ttl`` is the seconds that it lives without a message; 0 or less: it is over.
    ``password`` proves that it is ours.
    """

    session_id: int
    password: bytes = field(repr=False)
    ttl: float


def open_session(config: ZooKeeperConfig, ttl: float, *, deadline: float) -> GrantedSession:
    """Open a session of about ``ttl`` seconds, at the first endpoint that grants one. The server
    may grant another time.

    :raises LedgerRefused: every endpoint answers, and none is a ZooKeeper.
    :raises LedgerUnavailable: there was no session by ``deadline``.
    """
    what = f"open a session of {ttl:g} s"
    failures = _Failures()
    while True:
        not_zookeeper = 0
        for endpoint in config.endpoints:
            failures.begin(endpoint, deadline)
            try:
                with _connect(endpoint, config, deadline) as sock:
                    return _handshake(sock, 0, _NO_PASSWORD, ttl)
            except _NotZooKeeper as error:
                not_zookeeper += 1
                failures.add(error)
            except ssl.SSLError as error:
                # A ZooKeeper that is stopping causes an unexpected end, too.
                not_zookeeper += error.reason != _UNEXPECTED_END
                failures.add(error, _tls_meaning(error))
            except TimeoutError as error:
                failures.add(error)
                if _speaks_http(endpoint, deadline):
                    not_zookeeper += 1
                    failures.add(_NotZooKeeper(f"it speaks HTTP: {_NO_ZOOKEEPER}"))
            except (OSError, ValueError) as error:
                failures.add(error)
        if not_zookeeper == len(config.endpoints):
            raise LedgerRefused(f"{what}: {failures}")
        if time.monotonic() + _PAUSE >= deadline:
            raise LedgerUnavailable(f"{what}: no usable answer by the deadline; {failures}")
        time.sleep(_PAUSE)


def end_session(
    config: ZooKeeperConfig, session_id: int, password: bytes, *, deadline: float
) -> None:
    """End a session, and with it its records. It is no error if it is over already.

    This takes the session away from the client that has it. That client may reconnect faster and
    take it back. So this tries again until ``deadline``.

    :raises LedgerUnavailable: no server said by ``deadline`` that the session is over.
    """
    failures = _Failures()
    while True:
        for endpoint in config.endpoints:
            failures.begin(endpoint, deadline)
            try:
                with _connect(endpoint, config, deadline) as sock:
                    if _handshake(sock, session_id, password, _ENDPOINT_TIMEOUT).ttl <= 0:
                        return
                    sock.sendall(_framed(_CLOSE_REQUEST))
                    _receive(sock)
                    return
            except (OSError, ValueError, _NotZooKeeper) as error:
                failures.add(error)
        if time.monotonic() + _PAUSE >= deadline:
            raise LedgerUnavailable(
                f"the session of a node could not be ended and will expire ({failures})"
            )
        time.sleep(_PAUSE)


def revocation(config: ZooKeeperConfig, granted: GrantedSession) -> LeaseRevocation:
    """How to end a session."""
    files = {name: getattr(config, name) for name in _FILES}
    # The process that ends the session may have another working directory.
    absolute = {name: str(Path(path).absolute()) if path else "" for name, path in files.items()}
    endpoints = ",".join(map(str, config.endpoints))
    # The id is a string, because not every JSON parser reads integers of 64 bits.
    identity = {"session": str(granted.session_id), "password": granted.password.hex()}
    return LeaseRevocation(__name__, {"endpoints": endpoints, **identity, **absolute})


def perform(argument: Mapping[str, Any]) -> None:
    """End the session of a revocation's argument, with two seconds for each endpoint.

    :raises LedgerUnavailable: no server said that the session is over.
    """
    files = {name: argument[name] for name in _FILES}
    config = ZooKeeperConfig(endpoints=parse_endpoints(argument["endpoints"]), **files)
    deadline = time.monotonic() + _ENDPOINT_TIMEOUT * len(config.endpoints)
    password = bytes.fromhex(argument["password"])
    end_session(config, int(argument["session"]), password, deadline=deadline)


class _Failures:
    """Why each endpoint gave no answer; ``str`` of it says so. An attempt that the caller's
    deadline cuts short says nothing about its endpoint, so what the endpoint said before remains.
    """

    def __init__(self) -> None:
        self._texts: dict[Endpoint, str] = {}
        self._endpoint: Endpoint
        self._deadline = 0.0
        self._is_short = False

    def begin(self, endpoint: Endpoint, deadline: float) -> None:
        """An attempt at ``endpoint`` begins."""
        self._endpoint, self._deadline = endpoint, deadline
        self._is_short = _time_limit(deadline) < _ENDPOINT_TIMEOUT

    def add(self, error: Exception, text: str = "") -> None:
        """The attempt has failed with ``error``, which ``text`` explains if it is given."""
        text = text or str(error) or type(error).__name__
        # One that had its time ends before the deadline, unless this process was stopped.
        was_cut = self._is_short or time.monotonic() >= self._deadline
        if was_cut and isinstance(error, TimeoutError):
            self._texts.setdefault(self._endpoint, text)
        else:
            self._texts[self._endpoint] = text

    def __str__(self) -> str:
        return "; ".join(f"{endpoint}: {text}" for endpoint, text in self._texts.items())


def _time_limit(deadline: float) -> float:
    """Seconds for one endpoint."""
    return min(_ENDPOINT_TIMEOUT, (deadline - time.monotonic()) * _ENDPOINT_SHARE)


def _connect(endpoint: Endpoint, config: ZooKeeperConfig, deadline: float) -> socket.socket:
    left = _time_limit(deadline)
    if left <= 0:
        raise TimeoutError("the deadline had passed")
    sock = socket.create_connection((endpoint.host, endpoint.port), left)
    if not config.cacert:
        return sock
    try:
        return client_context(config).wrap_socket(sock, server_hostname=endpoint.host)
    except TimeoutError as error:
        sock.close()
        raise TimeoutError(
            "it did not answer the TLS handshake in time; if it speaks plain text, leave out "
            "'cacert'"
        ) from error
    except BaseException:
        sock.close()
        raise


def _speaks_http(endpoint: Endpoint, deadline: float) -> bool:
    """Whether a web server (or an etcd) listens there. Such a server waits for the end of an HTTP
    line, so it does not answer ZooKeeper's bytes.
    """
    left = min(_ENDPOINT_TIMEOUT, deadline - time.monotonic())
    if left <= 0:
        return False
    try:
        with socket.create_connection((endpoint.host, endpoint.port), left) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return sock.recv(5) == b"HTTP/"
    except OSError:
        return False


def _tls_meaning(error: ssl.SSLError) -> str:
    """What an SSL error says about the server."""
    reason = error.reason or str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _HOST_MISMATCH:
            return f"its certificate is for another host ({error.verify_message})"
        return f"its certificate was not signed by the CA in 'cacert' ({error.verify_message})"
    if "ALERT" in reason and ("CERT" in reason or "UNKNOWN_CA" in reason):
        return f"it wants a client certificate of its own CA in 'cert' and 'key' ({reason})"
    if "EOF" in reason:
        return (
            "it closed the connection during the TLS handshake; if it speaks plain text, leave out "
            f"'cacert' ({reason})"
        )
    return (
        "it does not speak TLS, or no version that we accept; if it speaks plain text, leave out "
        f"'cacert' ({reason})"
    )


def _framed(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


def _receive(sock: socket.socket) -> bytes:
    """One answer. :raises _NotZooKeeper: it is not framed as ZooKeeper's answers are."""
    (length,) = struct.unpack(">i", _receive_exactly(sock, 4))
    if not 0 < length <= _MAX_ANSWER:
        raise _NotZooKeeper(_NO_ZOOKEEPER)
    return _receive_exactly(sock, length)


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        try:
            more = sock.recv(count - len(data))
        except TimeoutError:
            raise TimeoutError("no answer in time; it is frozen, cut off or overloaded") from None
        if not more:
            hint = "it closed the connection"
            raise ConnectionResetError(f"{hint}; if it speaks TLS, give 'cacert'")
        data += more
    return data


def _handshake(sock: socket.socket, session_id: int, password: bytes, ttl: float) -> GrantedSession:
    """The server's answer for that session, or for a new one if ``session_id`` is 0."""
    timeout = max(1, min(round(ttl * 1000), 2**31 - 1))
    sock.sendall(_framed(_REQUEST.pack(0, 0, timeout, session_id, len(password), password, False)))
    answer = _receive(sock)
    if len(answer) < _ANSWER.size:
        raise _NotZooKeeper(_NO_ZOOKEEPER)
    _, granted, session_id, length, password = _ANSWER.unpack_from(answer)
    if length != len(_NO_PASSWORD):
        raise _NotZooKeeper(_NO_ZOOKEEPER)
    with suppress(OSError):
        sock.settimeout(_ENDPOINT_TIMEOUT)
    return GrantedSession(session_id, password, granted / 1000)
