"""Ending a lease in etcd with nothing but the standard library: what a guardian does for a node
that was killed.

etcd serves its calls as JSON over HTTP too, at the same endpoint, unless that was turned off
(``--enable-grpc-gateway``; measured with etcd 3.4). Where it is, nothing is done: the lease
expires. A user and a password work there; a name in a client certificate does not (etcd's gateway
has one certificate for everybody).

This module may import nothing but the standard library and plain modules of ``llutil``: it runs in
an interpreter without site-packages. It starts no thread.
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

from llutil.errors import RendezvousError
from llutil.ledgers.endpoints import Endpoint, parse_endpoints
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.lease_revocation import LeaseRevocation

__all__ = ["perform", "will"]

_PATIENCE = 2.0  # seconds for one endpoint
_LONGEST = 1 << 16  # bytes of an answer that are read
_NOT_FOUND = 5  # gRPC's code for what is not there (here: a lease that is over already)
_PRECONDITION = (
    9  # and for what does not fit the server's state (here: it asks nobody for a password)
)
_FILES = ("cacert", "cert", "key")


class _Refused(Exception):
    """etcd answered, and not with what was asked for."""

    def __init__(self, status: int, code: int | None, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.code = code


def will(config: EtcdConfig, lease: int) -> LeaseRevocation:
    """The will to end ``lease`` in the etcd of ``config``."""
    access = {name: getattr(config, name) for name in ("user", "password", "server_name")}
    files = {name: getattr(config, name) for name in _FILES}
    # Whoever carries it out may be in another folder.
    absolute = {name: str(Path(path).absolute()) if path else "" for name, path in files.items()}
    endpoints = ",".join(map(str, config.endpoints))
    # A string, since JSON's numbers are not for 64 bits everywhere; etcd's own JSON has it so too.
    return LeaseRevocation(
        __name__, {"lease": str(lease), "endpoints": endpoints, **access, **absolute}
    )


def perform(argument: Mapping[str, Any]) -> None:
    """End the lease, at the first endpoint that does it; two seconds for each. One that is over
    already is fine.

    :raises RendezvousError: none of them did.
    """
    tried = []
    for endpoint in parse_endpoints(argument["endpoints"]):
        deadline = time.monotonic() + _PATIENCE
        try:
            _revoke(endpoint, argument, deadline)
        except (OSError, ValueError, http.client.HTTPException, _Refused) as error:
            tried.append(f"{endpoint}: {str(error) or type(error).__name__}")
        else:
            return
    raise RendezvousError(
        f"the lease of a node that was killed could not be ended and will expire ({'; '.join(tried)})"
    )


def _revoke(endpoint: Endpoint, argument: Mapping[str, Any], deadline: float) -> None:
    with _connect(endpoint, argument, deadline) as sock:
        line = http.client.HTTPConnection(endpoint.host, endpoint.port)
        line.sock = sock
        headers = {}
        if argument["user"]:
            login = {"name": argument["user"], "password": argument["password"]}
            try:
                answer = _post(line, "/v3/auth/authenticate", login, {}, deadline)
                headers = {"Authorization": str(answer.get("token", ""))}
            except _Refused as refusal:
                if refusal.code != _PRECONDITION:
                    raise
        try:
            _post(line, "/v3/lease/revoke", {"ID": argument["lease"]}, headers, deadline)
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
        if argument["cert"]:
            context.load_cert_chain(argument["cert"], argument["key"])
        name = argument["server_name"] or endpoint.host
        return context.wrap_socket(sock, server_hostname=name)
    except BaseException:
        sock.close()
        raise


def _post(
    line: http.client.HTTPConnection,
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    deadline: float,
) -> dict[str, Any]:
    """What etcd answered.

    :raises _Refused: it did not do it.
    """
    if line.sock is None:
        raise ConnectionResetError("it closed the connection after its first answer")
    line.sock.settimeout(max(0.001, deadline - time.monotonic()))
    line.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
    response = line.getresponse()
    text = response.read(_LONGEST).decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if response.status == HTTPStatus.OK and isinstance(answer, dict):
        return answer
    said = answer if isinstance(answer, dict) else {}
    raise _Refused(
        response.status, said.get("code"), str(said.get("message") or text.strip()[:200])
    )
