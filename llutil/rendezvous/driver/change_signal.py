"""A descriptor that one thread makes readable and another waits for, in its event loop or here.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import os
import select
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

__all__ = ["LONGEST_WAIT", "ChangeSignal"]

LONGEST_WAIT = 3600.0
"""How long one wait takes at most, in seconds. The kernel has a limit too."""


class ChangeSignal:
    """One descriptor, from ``open`` to ``close``, or until nobody refers to it any more."""

    def __init__(self) -> None:
        self.fd = -1
        """Readable from ``set`` to ``clear``; -1 while it is not open."""
        self._close: Callable[[], object] = lambda: None

    def open(self) -> None:
        """Open it."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._close = weakref.finalize(self, os.close, self.fd)

    def set(self) -> None:
        """Make it readable."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Make it unreadable."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def wait(self, deadline: float) -> None:
        """Wait until it is readable, or until ``deadline``."""
        if self.fd < 0:
            return
        poll = select.poll()  # select.select takes no descriptor above 1023
        poll.register(self.fd, select.POLLIN)
        poll.poll(1000.0 * min(max(0.0, deadline - time.monotonic()), LONGEST_WAIT))

    def close(self) -> None:
        """Close it."""
        self.fd = -1
        self._close()
