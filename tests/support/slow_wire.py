"""A wire between two network interfaces that delays frames and loses some.

    python -m tests.support.slow_wire INTERFACE INTERFACE DELAY LOSS SEED

``DELAY`` is in seconds, for each direction, and ``LOSS`` the share of frames that are lost. It does
what ``tc qdisc add ... netem`` does, for kernels that have no netem. It prints a line once frames
pass, and ends when its standard input closes.

Frames come and go through packet sockets, with the header that tells which checksums and segments
are still to be made (``PACKET_VNET_HDR`` of packet(7)), as a virtual interface hands them over.
This module may import nothing but the standard library.
"""

from __future__ import annotations

import heapq
import os
import random
import selectors
import socket
import sys
import time
from contextlib import suppress

_ALL = 0x0003  # ETH_P_ALL
_SOL_PACKET, _VNET_HEADER, _IGNORE_OUTGOING = 263, 15, 23
_RECEIVE_BUFFER_FORCE = 33  # SO_RCVBUFFORCE of socket(7)
_FRAME = 10 + 14 + 65536
_BUFFER = 8 << 20


def _open(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    sock.setsockopt(_SOL_PACKET, _VNET_HEADER, 1)
    sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, _BUFFER)
    sock.bind((interface, _ALL))
    return sock


def _main(one: str, other: str, delay: str, loss: str, seed: str) -> None:
    ends = [_open(one), _open(other)]
    chance, lost, late = random.Random(seed), float(loss), float(delay)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    for end, out in (ends, ends[::-1]):
        selector.register(end, selectors.EVENT_READ, out)
    # By when each is due, and then in the order in which they came.
    waiting: list[tuple[float, int, socket.socket, bytes]] = []
    count = 0
    print("open", flush=True)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, out, frame = heapq.heappop(waiting)
            with suppress(OSError):  # the other end is down, or its queue is full
                out.send(frame)
        pause = max(0.0, waiting[0][0] - now) if waiting else None
        for key, _ in selector.select(pause):
            if key.fd == 0:
                if not os.read(0, 64):
                    return
                continue
            assert isinstance(key.fileobj, socket.socket)
            with suppress(OSError):  # all is read, or the interface is down
                while True:
                    frame = key.fileobj.recv(_FRAME)
                    if chance.random() >= lost:
                        count += 1
                        due = time.monotonic() + late
                        heapq.heappush(waiting, (due, count, key.data, frame))


if __name__ == "__main__":
    _main(*sys.argv[1:])
