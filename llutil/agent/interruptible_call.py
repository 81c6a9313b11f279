"""Waiting for a call that waits inside torch, without being deaf to signals meanwhile.

Python runs a signal's handler only between two of its own instructions, and torch waits for stores
in C++, for as long as a rendezvous' timeout says (torch 2.13: up to 15 minutes). So such a call
gets a thread, and the agent waits on its loop, which a signal wakes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from llutil.agent.event_loop import EventLoop
from llutil.agent.stop_signals import StopSignals

__all__ = ["interruptible"]

T = TypeVar("T")


def interruptible(call: Callable[[], T], loop: EventLoop, signals: StopSignals) -> T:
    """What ``call`` returns or raises. When a stop comes first, the call is left to itself, on a
    daemon thread.

    So it must not do anything that matters once nobody waits for it. The interpreter's exit may
    wait for it, as long as the call would have taken (measured with torch 2.13's stores).

    :raises SignalException: a stop was asked.
    """
    signals.check()
    returned: list[T] = []
    raised: list[BaseException] = []
    # Each side closes its own end, and the other's going is what wakes the loop: nobody writes to a
    # number that may have become somebody else's.
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            try:
                returned.append(call())
            except BaseException as error:  # noqa: BLE001 - the edge of the thread; it is raised by who waits
                raised.append(error)

    loop.watch(ours.fileno(), lambda: None)
    try:
        threading.Thread(target=run, name="llutil-heedful", daemon=True).start()
        while not (returned or raised):
            loop.turn(float("inf"))
            signals.check()
    finally:
        loop.unwatch(ours.fileno())
        ours.close()
    if raised:
        raise raised[0]
    return returned[0]
