"""Make what other processes have written visible here, and what was written here visible to them.

A processor may keep a write back while it goes on to read. Where two processes each write a word
and then read the other's, both can miss the other's. A barrier between write and read prevents
that. This one costs only whoever calls it: the kernel makes all processors pass one (membarrier(2),
some 10 ms). Where the kernel refuses, a pause is what is left: no processor keeps a write back for
so long.

This module may import only the standard library.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import time

__all__ = ["wait_for_all_processors"]

# The number of the system call, by kind of machine, and MEMBARRIER_CMD_GLOBAL.
_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_GLOBAL = 1
# Seconds.
_PAUSE = 0.02


def wait_for_all_processors() -> None:
    """Return once every processor has made its earlier writes visible."""
    number = _SYS_MEMBARRIER.get(platform.machine())
    if sys.platform == "linux" and number is not None:
        syscall = ctypes.CDLL(None).syscall
        if syscall(ctypes.c_long(number), _GLOBAL, 0, 0) == 0:
            return
    time.sleep(_PAUSE)
