"""ZooKeeper's handshake with nothing but the standard library: to open a session, to end one, to
see who listens.

kazoo keeps sessions, but tells neither the time that the server grants (it keeps the one that was
asked for), nor why a connection cannot be had; and only a handshake with a session's id and
password ends it from another process, which has to do without site-packages when it is a guardian.
So sessions are opened here, and handed to kazoo.

The bytes are those of ZooKeeper's ``ConnectRequest``, ``ConnectResponse`` and ``RequestHeader``
(3.4 and newer). This module may import nothing but the standard library and plain modules of
``llutil``. It starts no thread.
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

from llutil.ledgers.endpoints import Endpoint, parse_endpoints
from llutil.ledgers.errors import LedgerRefused, LedgerUnavailable
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.zookeeper.config import ZooKeeperConfig

__all__ = ["GrantedSession", "end_session", "open_session", "perform", "revocation"]

_PATIENCE = 2.0  # seconds for one endpoint, at most
_SHARE = 0.7  # of what is left until the deadline for one endpoint, so that it can be asked what it speaks instead
_PAUSE = 0.1  # seconds between two rounds over all endpoints
_LONGEST = 1 << 16  # bytes of an answer that are read
_REQUEST = struct.Struct(
    ">iqiqi16s?"
)  # protocol, last zxid, timeout in ms, session, password, read-only
_ANSWER = struct.Struct(">iiqi16s")
_CLOSE = struct.pack(">ii", 1, -11)  # xid, type
_NOBODY = bytes(16)
_NO_ZOOKEEPER = "what listens there is not a ZooKeeper; correct the host and port"
_FILES = ("cacert", "cert", "key")
_OTHER_HOST = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_UNEXPECTED_END = "UNEXPECTED_EOF_WHILE_READING"


class _Stranger(Exception):
    """What listens there is not a ZooKeeper, or not the way that was expected."""


@dataclass(frozen=True, slots=True)
class GrantedSession:
    """A session, and the seconds that it outlives silence. ``password`` proves that it is ours."""

    session: int
    password: bytes = field(repr=False)
    ttl: float


def open_session(config: ZooKeeperConfig, ttl: float, *, deadline: float) -> GrantedSession:
    """Open a session of about ``ttl`` seconds at the first endpoint that gives one; the server may
    grant another time.

    :raises LedgerRefused: something answers at every endpoint, and none of it is a ZooKeeper.
    :raises LedgerUnavailable: there was none by ``deadline``.
    """
    what = f"open a session of {ttl:g} s"
    while True:
        tried: dict[Endpoint, str] = {}
        strangers = 0
        for endpoint in config.endpoints:
            try:
                with _connect(endpoint, config, deadline) as sock:
                    return _shake(sock, 0, _NOBODY, ttl)
            except _Stranger as error:
                strangers += 1
                tried[endpoint] = str(error)
            except ssl.SSLError as error:
                strangers += error.reason != _UNEXPECTED_END  # which a server that ends causes too
                tried[endpoint] = _meaning(error)
            except TimeoutError as error:
                tried[endpoint] = str(error)
                if _speaks_http(endpoint, deadline):
                    strangers += 1
                    tried[endpoint] = f"it speaks HTTP: {_NO_ZOOKEEPER}"
            except (OSError, ValueError) as error:
                tried[endpoint] = str(error) or type(error).__name__
        told = "; ".join(f"{endpoint}: {text}" for endpoint, text in tried.items())
        if strangers == len(config.endpoints):
            raise LedgerRefused(f"{what}: {told}")
        if time.monotonic() + _PAUSE >= deadline:
            raise LedgerUnavailable(f"{what}: no usable answer by the deadline; {told}")
        time.sleep(_PAUSE)


def end_session(config: ZooKeeperConfig, session: int, password: bytes, *, deadline: float) -> None:
    """End a session, and with it its records. One that is over already is fine.

    Whoever still holds it loses its connection, and may be faster with taking it back: so this
    tries again.

    :raises LedgerUnavailable: no server said that it is over by ``deadline``.
    """
    tried: dict[Endpoint, str] = {}
    while True:
        for endpoint in config.endpoints:
            try:
                with _connect(endpoint, config, deadline) as sock:
                    if _shake(sock, session, password, _PATIENCE).ttl <= 0:
                        return
                    sock.sendall(_framed(_CLOSE))
                    _receive(sock)
                    return
            except (OSError, ValueError, _Stranger) as error:
                tried[endpoint] = str(error) or type(error).__name__
        if time.monotonic() + _PAUSE >= deadline:
            told = "; ".join(f"{endpoint}: {text}" for endpoint, text in tried.items())
            raise LedgerUnavailable(
                f"the session of a node could not be ended and will expire ({told})"
            )
        time.sleep(_PAUSE)


def revocation(config: ZooKeeperConfig, granted: GrantedSession) -> LeaseRevocation:
    """The will to end a session."""
    files = {name: getattr(config, name) for name in _FILES}
    # Whoever carries it out may be in another folder.
    absolute = {name: str(Path(path).absolute()) if path else "" for name, path in files.items()}
    endpoints = ",".join(map(str, config.endpoints))
    # A string, since JSON's numbers are not for 64 bits everywhere.
    identity = {"session": str(granted.session), "password": granted.password.hex()}
    return LeaseRevocation(__name__, {"endpoints": endpoints, **identity, **absolute})


def perform(argument: Mapping[str, Any]) -> None:
    """End the session that ``revocation`` was made of; two seconds for each endpoint.

    :raises LedgerUnavailable: no server said that it is over.
    """
    files = {name: argument[name] for name in _FILES}
    config = ZooKeeperConfig(endpoints=parse_endpoints(argument["endpoints"]), **files)
    deadline = time.monotonic() + _PATIENCE * len(config.endpoints)
    password = bytes.fromhex(argument["password"])
    end_session(config, int(argument["session"]), password, deadline=deadline)


def _connect(endpoint: Endpoint, config: ZooKeeperConfig, deadline: float) -> socket.socket:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline had passed")
    left = min(_PATIENCE, left * _SHARE)
    sock = socket.create_connection((endpoint.host, endpoint.port), left)
    if not config.cacert:
        return sock
    try:
        context = ssl.create_default_context(cafile=config.cacert)
        if config.cert:
            context.load_cert_chain(config.cert, config.key)
        return context.wrap_socket(sock, server_hostname=endpoint.host)
    except BaseException:
        sock.close()
        raise


def _speaks_http(endpoint: Endpoint, deadline: float) -> bool:
    """Whether a web server (or an etcd) listens there; those wait for the end of a line that
    ZooKeeper's bytes are not.
    """
    left = min(_PATIENCE, deadline - time.monotonic())
    if left <= 0:
        return False
    try:
        with socket.create_connection((endpoint.host, endpoint.port), left) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return sock.recv(5) == b"HTTP/"
    except OSError:
        return False


def _meaning(error: ssl.SSLError) -> str:
    """What a failure of TLS says of the other side."""
    reason = error.reason or str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_HOST:
            return f"its certificate is for another host ({error.verify_message})"
        return f"its certificate was not signed by the CA in 'cacert' ({error.verify_message})"
    if "ALERT" in reason and ("CERT" in reason or "UNKNOWN_CA" in reason):
        return f"it wants a client certificate of its own CA in 'cert' and 'key' ({reason})"
    if "EOF" in reason:
        return f"it closed the connection during the TLS handshake; if it speaks plain text, leave out 'cacert' ({reason})"
    return f"it does not speak TLS as we do; if it speaks plain text, leave out 'cacert' ({reason})"


def _framed(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


def _receive(sock: socket.socket) -> bytes:
    """One answer. :raises _Stranger: it is not framed as ZooKeeper's are."""
    (length,) = struct.unpack(">i", _exactly(sock, 4))
    if not 0 < length <= _LONGEST:
        raise _Stranger(_NO_ZOOKEEPER)
    return _exactly(sock, length)


def _exactly(sock: socket.socket, count: int) -> bytes:
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


def _shake(sock: socket.socket, session: int, password: bytes, ttl: float) -> GrantedSession:
    """What the server says to that session, or to a new one if it is 0; one of no time is over."""
    timeout = max(1, min(round(ttl * 1000), 2**31 - 1))
    sock.sendall(_framed(_REQUEST.pack(0, 0, timeout, session, len(password), password, False)))
    answer = _receive(sock)
    if len(answer) < _ANSWER.size:
        raise _Stranger(_NO_ZOOKEEPER)
    _, granted, session, length, password = _ANSWER.unpack_from(answer)
    if length != len(_NOBODY):
        raise _Stranger(_NO_ZOOKEEPER)
    with suppress(OSError):
        sock.settimeout(_PATIENCE)
    return GrantedSession(session, password, granted / 1000)
