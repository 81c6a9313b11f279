"""Which address a node gives to the others, and how it says which machine it is on.

The address is the local one of the node's route to the store that all nodes reach: if the store can be reached from
there, so can, in all but odd networks, the other nodes. No name is looked up, since a host's own name often leads to
a loopback address or to nowhere. This module may import nothing but the standard library.
"""

from __future__ import annotations

import socket
from pathlib import Path

__all__ = ["local_address", "machine_id"]


def local_address(host: str, port: int) -> str:
    """This host's address on its route to ``host``; connecting a datagram socket sends nothing (connect(2)).

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
