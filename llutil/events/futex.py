"""Wait until a shared word changes, and wake the processes that wait for it.

On Linux this is the futex system call; elsewhere it is polling. A futex waits on an address of
shared memory. So it needs no lock and no file descriptor, and a process that dies leaves nothing
locked. Python has no binding for it, hence the call through ``ctypes``, which releases the GIL. The
numbers are those of futex(2) and of unistd.h for the two kinds of machine below. Other machines,
and sandboxes that refuse the call, poll with short sleeps.

This module may import only the standard library. It knows nothing of pages and flags.
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

# The number of the system call, by kind of machine.
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}
_WAKE = 1
# Unlike plain WAIT (0), this operation takes an absolute deadline, on CLOCK_MONOTONIC.
_WAIT_BITSET = 9
_MATCH_ANY = 0xFFFFFFFF
_WAKE_ALL = 2**31 - 1
# Seconds of one wait at most, so that an infinite deadline still makes a valid timestamp.
_LONGEST_WAIT = 3600.0
# Seconds of the first and of the longest sleep between two looks, where we poll.
_FIRST_SLEEP, _LONGEST_SLEEP = 0.001, 0.02

_Futex = Callable[[object, int, int, object], int]


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


@functools.cache
def _system_call() -> _Futex | None:
    """The system call as ``(word, operation, value, deadline) -> errno``; None without one."""
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
        result = syscall(number, word, operation, value, deadline, None, _MATCH_ANY)
        return ctypes.get_errno() if result == -1 else 0

    return futex


def wait(word: memoryview, expected: int, deadline: float) -> bool:
    """Sleep while the 32-bit ``word`` holds ``expected``; False if it still does at ``deadline``.

    ``deadline`` is in seconds on ``time.monotonic()``, which is one clock for all processes of a
    host. If it is in the past, the word is looked at once, without a sleep. Signal handlers run
    meanwhile.

    :raises ValueError: ``deadline`` is NaN, or ``word`` was released.
    """
    if math.isnan(deadline):
        raise ValueError("deadline is NaN; wanted seconds on time.monotonic()")
    cell = ctypes.c_uint32.from_buffer(word)  # this also keeps the memory mapped while we sleep
    futex = _system_call()
    sleep = _FIRST_SLEEP
    while cell.value == expected:
        now = time.monotonic()
        if now >= deadline:
            return False
        until = min(deadline, now + _LONGEST_WAIT)
        if futex is None:
            time.sleep(min(sleep, until - now))
            sleep = min(2 * sleep, _LONGEST_SLEEP)
            continue
        timespec = _Timespec(*divmod(math.ceil(until * 1e9), 10**9))
        failure = futex(ctypes.byref(cell), _WAIT_BITSET, expected, ctypes.byref(timespec))
        match failure:
            # Woken (perhaps without a change), changed before we slept, too late, or interrupted:
            # look again.
            case 0 | errno.EAGAIN | errno.ETIMEDOUT | errno.EINTR:
                pass
            case errno.ENOSYS | errno.EPERM:
                futex = None
            case _:
                raise OSError(failure, f"futex wait: {os.strerror(failure)}")
    return True


def wake(word: memoryview) -> None:
    """Wake every process and thread that sleeps in ``wait`` on this word."""
    futex = _system_call()
    if futex is not None:  # processes that poll see the change by themselves
        futex(ctypes.byref(ctypes.c_uint32.from_buffer(word)), _WAKE, _WAKE_ALL, None)
