"""``dial``: a new connection to a server that has welcomed its client. This module may import the
standard library and this folder.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from llutil.ledgers.served import handshake, messages
from llutil.ledgers.served.config import ServedConfig
from llutil.ledgers.served.messages import Hello, Welcome

__all__ = ["dial", "dial_problem"]

# Seconds for one attempt.
_ATTEMPT = 5.0


def dial(
    config: ServedConfig, hello: Hello, on_socket: Callable[[socket.socket], None]
) -> tuple[socket.socket, Welcome]:
    """A connection, and what the server has said. ``on_socket`` is called with each socket before
    it is used: whoever shuts that down ends the attempt.

    :raises OSError: nobody answers.
    :raises HandshakeError, ValueError: who answers is not the server, or refuses this client.
    """
    deadline = time.monotonic() + _ATTEMPT
    where = str(config.endpoint)
    connection = _connect(config, on_socket, deadline)
    try:
        handshake.watch_connection(connection)
        handshake.authenticate(connection, where, config.secret, deadline)
        connection.sendall(handshake.frame(messages.encode(hello)))
        said = handshake.heard(connection, where, deadline)
        return connection, messages.convert(said, Welcome)
    except BaseException:
        connection.close()
        raise


def _connect(
    config: ServedConfig, on_socket: Callable[[socket.socket], None], deadline: float
) -> socket.socket:
    """A connection to the first of the endpoint's addresses that takes one."""
    host, port = config.endpoint.host, config.endpoint.port
    problem = OSError(f"{host} has no address")
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, proto)
        try:
            on_socket(connection)
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            connection.connect(address)
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            problem = error
        else:
            return connection
    raise problem


def dial_problem(error: Exception) -> str:
    """What ``error`` of ``dial`` means, in words."""
    if isinstance(error, ConnectionRefusedError):
        return "nobody serves a ledger there: the connection was refused"
    if isinstance(error, socket.gaierror):
        return f"its host cannot be looked up: {error.strerror}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
