"""Waits for a call that waits inside torch, in a way that a signal can interrupt.

Python runs a signal handler only between two of its own instructions. torch waits for stores in
C++, for as long as a rendezvous' timeout says (torch 2.13: up to 15 minutes). So such a call runs
on its own thread, and the agent waits on its loop, which a signal wakes.
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
    """What ``call`` returns or raises. If a stop comes first, the call goes on alone on a daemon
    thread.

    So the call must do nothing that matters after a stop. The interpreter's exit may wait for it,
    for as long as the call takes (measured with torch 2.13's stores).

    :raises SignalException: a stop was asked.
    """
    signals.check()
    returned: list[T] = []
    raised: list[BaseException] = []
    # The thread closes its end when the call is over, which wakes the loop. Each side closes only
    # its own end, so none uses a descriptor that may be closed and belong to another file.
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            try:
                returned.append(call())
            except BaseException as error:  # noqa: BLE001 - the edge of the thread; raised below
                raised.append(error)

    loop.watch(ours.fileno(), lambda: None)
    try:
        threading.Thread(target=run, name="llutil-interruptible", daemon=True).start()
        while not (returned or raised):
            loop.turn(float("inf"))
            signals.check()
    finally:
        loop.unwatch(ours.fileno())
        ours.close()
    if raised:
        raise raised[0]
    return returned[0]
