"""Sleeping until a shared word changes, and waking who sleeps: Linux's futex, with polling
elsewhere.

A futex sleeps on an address of shared memory, so it needs no lock and no descriptor, and a process
that dies leaves nothing held. Python has no binding for it, hence the system call through
``ctypes`` (which lets go of the GIL). Numbers and meaning: Linux's futex(2) and its unistd.h for
the two machines below. Other machines, and sandboxes that refuse the call, are served by short
sleeps.

This module may import nothing but the standard library; it knows no page and no flag.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import math
import os
import platform
import sys
import time
from collections.abc import Callable

__all__ = ["wait", "wake"]

_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}
_WAKE = 1
_WAIT_BITSET = 9  # unlike plain WAIT (0) it takes an absolute deadline, on CLOCK_MONOTONIC
_ANY = 0xFFFFFFFF
_EVERYONE = 2**31 - 1
_LONGEST = 3600.0
"""Seconds of one sleep, so that an infinite deadline still makes a valid timestamp."""
_POLL_FIRST, _POLL_LAST = 0.001, 0.02

_Futex = Callable[[object, int, int, object], int]


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


@functools.cache
def _native() -> _Futex | None:
    """The system call as ``(word, operation, value, deadline) -> errno``, or None where we have
    none.
    """
    number = _SYS_FUTEX.get(platform.machine())
    if sys.platform != "linux" or number is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    pointer = ctypes.c_void_p
    syscall.argtypes = (
        ctypes.c_long,
        pointer,
        ctypes.c_int,
        ctypes.c_uint32,
        pointer,
        pointer,
        ctypes.c_uint32,
    )
    syscall.restype = ctypes.c_long

    def futex(word: object, operation: int, value: int, deadline: object) -> int:
        result = syscall(number, word, operation, value, deadline, None, _ANY)
        return ctypes.get_errno() if result == -1 else 0

    return futex


def wait(word: memoryview, expected: int, deadline: float) -> bool:
    """Sleep while the 32-bit ``word`` holds ``expected``; False if it still does at ``deadline``.

    ``deadline`` is on ``time.monotonic()``, which is one clock for all processes of a host; one in
    the past makes this a test that does not sleep. Signal handlers run while it sleeps.

    :raises ValueError: ``deadline`` is not a number, or ``word`` was released.
    """
    if math.isnan(deadline):
        raise ValueError("deadline is NaN; wanted seconds on time.monotonic()")
    cell = ctypes.c_uint32.from_buffer(word)  # also keeps the memory mapped while we sleep
    futex = _native()
    pause = _POLL_FIRST
    while cell.value == expected:
        now = time.monotonic()
        if now >= deadline:
            return False
        until = min(deadline, now + _LONGEST)
        if futex is None:
            time.sleep(min(pause, until - now))
            pause = min(2 * pause, _POLL_LAST)
            continue
        timespec = _Timespec(*divmod(math.ceil(until * 1e9), 10**9))
        failure = futex(ctypes.byref(cell), _WAIT_BITSET, expected, ctypes.byref(timespec))
        match failure:
            # Woken (perhaps for nothing), changed before we slept, too late, interrupted: look
            # again.
            case 0 | errno.EAGAIN | errno.ETIMEDOUT | errno.EINTR:
                pass
            case errno.ENOSYS | errno.EPERM:
                futex = None
            case _:
                raise OSError(failure, f"futex wait: {os.strerror(failure)}")
    return True


def wake(word: memoryview) -> None:
    """Wake every process and thread that sleeps in ``wait`` on this word."""
    futex = _native()
    if futex is not None:  # who polls, or was refused the call, looks by itself
        futex(ctypes.byref(ctypes.c_uint32.from_buffer(word)), _WAKE, _EVERYONE, None)
