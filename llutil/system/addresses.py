"""Which address a node gives to the others, and how it says which machine it is on.

The address is the local one of the node's route to the store that all nodes reach: if the store can
be reached from there, so can, in all but odd networks, the other nodes. No name is looked up, since
a host's own name often leads to a loopback address or to nowhere. This module may import nothing
but the standard library.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

__all__ = ["bracketed", "family_of", "is_loopback", "local_address", "machine_id"]


def local_address(host: str, port: int) -> str:
    """This host's address on its route to ``host``; connecting a datagram socket sends nothing
    (connect(2)).

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
    """The same for two processes if and only if a loopback address of one leads to the other.

    That is: the same boot of the same kernel, and the same network namespace.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}"


def bracketed(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def family_of(host: str) -> socket.AddressFamily:
    """Of which family a socket is that is bound to ``host``, an address or a name.

    :raises OSError: the name cannot be resolved.
    """
    return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]


def is_loopback(address: str) -> bool:
    """Whether ``address`` leads back to the machine that uses it; a name, which nobody looks up
    here, does not.
    """
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
