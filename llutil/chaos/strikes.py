"""How a real fault is made, in the process of the rank that makes it.

This module may import only the standard library and ``llutil.system``; it uses torch if the rank
has imported it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import NoReturn

from llutil.system.send_signal import Sent, send_signal

__all__ = ["hang_for_chaos", "kill_for_chaos", "preempt_for_chaos", "run_out_of_memory", "say"]

# More bytes than any machine can address.
_TOO_MUCH = 1 << 60


def say(text: str) -> None:
    """Say it on standard error, at once, whatever logging and ``sys.stderr`` are."""
    os.write(2, f"llutil chaos: {text}\n".encode(errors="replace"))


def kill_for_chaos() -> NoReturn:
    """End this process as the kernel does."""
    os.kill(os.getpid(), signal.SIGKILL)
    hang_for_chaos()


def hang_for_chaos() -> NoReturn:
    """Wait for ever."""
    while True:
        time.sleep(3600)


def preempt_for_chaos(agent: int, start: int) -> None:
    """Ask the agent with this pid, which started at ``start`` (ticks), to end.

    :raises OSError: it got no signal; the text says why.
    """
    if (sent := send_signal(agent, start, signal.SIGTERM)) is not Sent.DONE:
        raise OSError(sent.value)


def run_out_of_memory() -> NoReturn:
    """Allocate more than there is: of the GPU, if this process uses one.

    :raises MemoryError: Python has none left.
    :raises torch.OutOfMemoryError: the GPU has none left.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        _, total = torch.cuda.mem_get_info()
        torch.empty(4 * total, dtype=torch.uint8, device="cuda")
    bytearray(_TOO_MUCH)
    raise MemoryError  # nobody has as much
