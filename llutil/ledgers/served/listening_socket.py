"""``listening_socket``: the socket of a ledger's server. It imports only the standard library."""

from __future__ import annotations

import errno
import socket

__all__ = ["listening_socket"]

_BACKLOG = 512


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at ``host``, or at all addresses of this machine if that is empty.

    :raises OSError: it is no address of this machine, or the port is taken there.
    """
    if host:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # no IPv6 here
                raise
    return socket.create_server(("", port), backlog=_BACKLOG)
