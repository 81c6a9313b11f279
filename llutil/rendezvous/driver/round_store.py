"""The TCPStore of a round: the round's leader hosts it, the workers of all nodes use it.

It is bound to the node's own address, at a port that the kernel chooses, before its address is
published. Every round has a new one, so that no worker finds a key of an earlier round. This module
imports torch.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from datetime import timedelta

from torch.distributed import DistError, TCPStore

from llutil.errors import RendezvousError
from llutil.system.addresses import socket_family

__all__ = ["RoundStore", "connect_to_store", "host_store"]

_BIND_TIMEOUT = timedelta(seconds=30)
"""A TCPStore that is a host first connects to itself. With torch's default, a wrong address would
cost 300 s.
"""


class RoundStore:
    """A store that serves until ``close``. ``host`` is the address that others are told.

    :raises RendezvousError: this node cannot be reached under its own address.
    """

    def __init__(self, host: str) -> None:
        try:
            store = host_store(host, _BIND_TIMEOUT)
        except (OSError, DistError) as error:
            raise RendezvousError(
                f"this node cannot host a TCPStore at its own address {host!r}: {error}; set "
                "local_addr to an address at which this node can be reached"
            ) from error
        self._server: TCPStore | None = store
        self.host = host
        self.port: int = store.port

    def close(self) -> None:
        """Stop serving; torch closes the port when the last reference goes."""
        self._server = None


def host_store(host: str, timeout: timedelta) -> TCPStore:
    """A store that this process hosts. It listens at the address ``host`` alone, and at a port that
    the kernel chooses. ``timeout`` is that of its own requests.

    torch by itself would let in whoever reaches any address of the machine. It has to, if ``host``
    is a name, which other nodes may resolve to another address than this one does, or an address
    that leads here through a router and is not this machine's.

    :raises OSError, DistError: the store cannot be hosted at ``host``.
    """
    listener = _listener(host)
    port = 0 if listener is None else listener.getsockname()[1]
    fd = None if listener is None else listener.detach()
    return TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timeout,
        master_listen_fd=fd,
    )


def _listener(host: str) -> socket.socket | None:
    """A socket that listens at the address ``host``; None if that is no address of this machine."""
    try:
        ipaddress.ip_address(host)
        return socket.create_server((host, 0), family=socket_family(host))
    except ValueError:
        return None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        raise


def connect_to_store(host: str, port: int, seconds: float) -> TCPStore:
    """A client of the store at ``host``.

    :raises DistNetworkError: (torch's) nobody answered within so many ``seconds``.
    """
    timeout = timedelta(seconds=seconds)
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
