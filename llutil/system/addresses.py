"""Which address a node gives to the others, and an id of the machine it is on.

The address is the local one of the node's route to the store that all nodes reach. If the store can
be reached from that address, so can the other nodes, in all but odd networks. No name is looked up,
since a host's own name often leads to a loopback address or to nowhere. This module may import only
the standard library.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

__all__ = ["host_and_port", "is_loopback", "local_address", "machine_id", "socket_family"]


def local_address(host: str, port: int) -> str:
    """This machine's address on its route to ``host``.

    Nothing is sent: connecting a datagram socket only chooses a route (connect(2)).

    :raises OSError: the name ``host`` cannot be resolved, or there is no route.
    """
    last: OSError | None = None
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind, proto) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
        except OSError as error:
            last = error
    raise last or OSError(f"{host!r} has no address")


def machine_id() -> str:
    """An id that two processes share if a loopback address leads from one to the other, only then.

    That is so in the same boot of the same kernel, and in the same network namespace. Where the
    boot's id is not shown (systemd's ProcSubset=pid), the host's name stands for it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, PermissionError):
        boot = socket.gethostname()
    return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}"


def host_and_port(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def socket_family(host: str) -> socket.AddressFamily:
    """The family of a socket that can be bound to ``host``, an address or a name.

    :raises OSError: the name cannot be resolved.
    """
    return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]


def is_loopback(address: str) -> bool:
    """Whether ``address`` leads back to the machine that uses it.

    Names are not looked up: except ``localhost``, none is taken for a loopback address.
    """
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
