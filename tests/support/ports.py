"""Free ports on the loopback interface, for servers that tests start."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

__all__ = ["free_ports"]

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """``count`` distinct ports that nobody listens on now.

    They lie below the kernel's ephemeral range, so that no outgoing connection of a busy machine
    takes one between this call and the server's bind. Another server still can: callers try again.
    """
    low = int(_RANGE.read_text().split()[0])
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            with suppress(OSError):
                port = random.randrange(max(1024, low // 2), low)
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found
