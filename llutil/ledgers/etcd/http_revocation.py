"""Ends a lease in etcd with nothing but the standard library. A guardian does this for a node that
was killed.

etcd also serves its calls as JSON over HTTP, at the same endpoint, unless that was turned off
(``--enable-grpc-gateway``; measured with etcd 3.4). If it is off, nothing is done, and the lease
expires. A user and a password work there. A user name in a client certificate does not, because
etcd's gateway uses one certificate for everybody.

This module may import the standard library and plain modules of ``llutil``, because it runs in an
interpreter without site-packages. It starts no thread.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from llutil.backends.endpoints import Endpoint, parse_endpoints
from llutil.errors import RendezvousError
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.lease_revocation import LeaseRevocation

__all__ = ["perform", "revocation"]

# Seconds for one endpoint.
_ENDPOINT_TIMEOUT = 2.0
# Bytes of an answer that are read.
_MAX_ANSWER = 1 << 16
# gRPC's code NOT_FOUND. Here: the lease is over already.
_NOT_FOUND = 5
# gRPC's code FAILED_PRECONDITION. Here: etcd has authentication disabled.
_PRECONDITION = 9
_FILES = ("cacert", "cert", "key")


class _Refused(Exception):
    """etcd answered with an error. ``code`` is gRPC's code, if the answer has one."""

    def __init__(self, status: int, code: int | None, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.code = code


def revocation(config: EtcdConfig, lease: int) -> LeaseRevocation:
    """How to end ``lease`` in the etcd of ``config``."""
    access = {name: getattr(config, name) for name in ("user", "password", "server_name")}
    files = {name: getattr(config, name) for name in _FILES}
    # The process that ends the lease may have another working directory.
    absolute = {name: str(Path(path).absolute()) if path else "" for name, path in files.items()}
    endpoints = ",".join(map(str, config.endpoints))
    # The lease is a string, because not every JSON parser reads integers of 64 bits. etcd's own
    # JSON does the same.
    return LeaseRevocation(
        __name__, {"lease": str(lease), "endpoints": endpoints, **access, **absolute}
    )


def perform(argument: Mapping[str, Any]) -> None:
    """End the lease, at the first endpoint that does it, with two seconds for each. It is no error
    if the lease is over already.

    :raises RendezvousError: no endpoint did it.
    """
    failures = []
    for endpoint in parse_endpoints(argument["endpoints"]):
        deadline = time.monotonic() + _ENDPOINT_TIMEOUT
        try:
            _revoke(endpoint, argument, deadline)
        except (OSError, ValueError, http.client.HTTPException, _Refused) as error:
            failures.append(f"{endpoint}: {str(error) or type(error).__name__}")
        else:
            return
    raise RendezvousError(
        "the lease of a node that was killed could not be ended and will expire "
        f"({'; '.join(failures)})"
    )


def _revoke(endpoint: Endpoint, argument: Mapping[str, Any], deadline: float) -> None:
    with _connect(endpoint, argument, deadline) as sock:
        http_connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
        http_connection.sock = sock
        headers = {}
        if argument["user"]:
            login = {"name": argument["user"], "password": argument["password"]}
            try:
                answer = _post(http_connection, "/v3/auth/authenticate", login, {}, deadline)
                headers = {"Authorization": str(answer.get("token", ""))}
            except _Refused as refusal:
                if refusal.code != _PRECONDITION:
                    raise
        try:
            _post(http_connection, "/v3/lease/revoke", {"ID": argument["lease"]}, headers, deadline)
        except _Refused as refusal:
            if refusal.code != _NOT_FOUND:
                raise


def _connect(endpoint: Endpoint, argument: Mapping[str, Any], deadline: float) -> socket.socket:
    left = max(0.001, deadline - time.monotonic())
    sock = socket.create_connection((endpoint.host, endpoint.port), left)
    if not argument["cacert"]:
        return sock
    try:
        context = ssl.create_default_context(cafile=argument["cacert"])
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as in ``llutil.ledgers.credentials``
        if argument["cert"]:
            context.load_cert_chain(argument["cert"], argument["key"])
        name = argument["server_name"] or endpoint.host
        return context.wrap_socket(sock, server_hostname=name)
    except BaseException:
        sock.close()
        raise


def _post(
    http_connection: http.client.HTTPConnection,
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    deadline: float,
) -> dict[str, Any]:
    """etcd's answer to one call.

    :raises _Refused: etcd answered with an error.
    """
    if http_connection.sock is None:
        raise ConnectionResetError("it closed the connection after its first answer")
    http_connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
    http_connection.request(
        "POST", path, json.dumps(body), {"Content-Type": "application/json", **headers}
    )
    response = http_connection.getresponse()
    text = response.read(_MAX_ANSWER).decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if response.status == HTTPStatus.OK and isinstance(answer, dict):
        return answer
    error = answer if isinstance(answer, dict) else {}
    raise _Refused(
        response.status, error.get("code"), str(error.get("message") or text.strip()[:200])
    )
