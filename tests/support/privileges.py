"""What the superuser gives up in a forked child, so that there are processes it may not signal."""

from __future__ import annotations

import ctypes
import struct

__all__ = ["ANOTHER_USER", "forgo_signals_to_others"]

ANOTHER_USER = 65534
"""Nobody's number, on every Linux."""

_PR_CAPBSET_DROP = 24
_CAP_KILL = 5
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def forgo_signals_to_others() -> None:
    """Give up CAP_KILL for good (capabilities(7)): this process and what it starts may signal their
    own user's processes alone. All else that a superuser may do stays.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_CAPBSET_DROP, _CAP_KILL, 0, 0, 0) == 0
    header = struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    sets = list(struct.unpack("6I", data.raw))
    sets[0] &= ~(1 << _CAP_KILL)  # effective
    sets[1] &= ~(1 << _CAP_KILL)  # permitted
    assert libc.capset(header, struct.pack("6I", *sets)) == 0
