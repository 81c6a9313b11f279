"""Gives a forked process an environment of its own, also where the kernel shows it.

The kernel shows the environment that a process, or the one that it is forked from, was started
with; there must be room for another one. This module may import nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["ROOM", "take_environment"]

ROOM = {"LLUTIL_TEST_ROOM": "x" * (1 << 15)}
"""What a process has in its environment that leaves room for its children's."""


def take_environment(env: Mapping[str, str]) -> None:
    """Have this environment, also where the kernel shows it: in the place of the one that this
    process was started with.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[47]), int(fields[48])  # env_start and env_end of proc(5)
    shown = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    assert len(shown) <= end - begin, f"{len(shown)} bytes of environment"
    os.environ.clear()
    ctypes.CDLL(None).clearenv()  # no variable lies any more where the next line writes
    ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)
    os.environ.update(env)
