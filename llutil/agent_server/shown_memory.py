"""What ``/proc`` shows as the environment and the command line of a forked process.

The kernel shows the memory at the addresses where it has put both when the program was started
(proc(5), ``env_start`` and ``arg_start``). A fork has a copy. Those who look for a job's processes
look for the job's mark there, so an agent that was forked has to show its own. Only so much can be
shown as there is room for: a server is started with a variable that makes room.

What a library has read of the first environment may still point there. So a server calls
``move_environment`` before it imports any. This module may import only the standard library.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ROOM_VARIABLE", "move_environment", "room", "show", "shown_room", "shown_size"]

ROOM_VARIABLE = "LLUTIL_AGENT_SERVER_ROOM"
"""It holds nothing, and makes room in the memory where the kernel shows the environment."""

# The kernel's limit for one string is 128 KiB (execve(2)).
_ROOM = 120_000


def room() -> dict[str, str]:
    """The variable that makes room for the environment of an agent."""
    return {ROOM_VARIABLE: "-" * _ROOM}


def move_environment() -> None:
    """Have the environment elsewhere, without the variable that makes room."""
    environment = dict(os.environ)
    environment.pop(ROOM_VARIABLE, None)
    _replace(environment)


def shown_room() -> int:
    """How many bytes of environment can be shown."""
    _, _, env_start, env_end = _addresses()
    return env_end - env_start


def shown_size(environment: Mapping[str, str]) -> int:
    """How many bytes of room ``environment`` needs."""
    return len(_encoded(environment))


def show(environment: Mapping[str, str], command: Sequence[str]) -> None:
    """Have ``environment``, which there is room for; and show it and ``command``, of which the end
    may be cut off.
    """
    arg_start, arg_end, env_start, env_end = _addresses()
    shown = _encoded(environment)
    assert len(shown) <= env_end - env_start
    _replace(environment)
    ctypes.memmove(env_start, shown.ljust(env_end - env_start, b"\0"), env_end - env_start)
    # The kernel takes a command line that does not end with a zero byte for a longer one.
    words = b"\0".join(map(os.fsencode, command))[: arg_end - arg_start - 1]
    ctypes.memmove(arg_start, words.ljust(arg_end - arg_start, b"\0"), arg_end - arg_start)


def _encoded(environment: Mapping[str, str]) -> bytes:
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())


def _replace(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    ctypes.CDLL(None).clearenv()
    os.environ.update(environment)


def _addresses() -> tuple[int, int, int, int]:
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    after_name = fields.rpartition(")")[2].split()
    arg_start, arg_end, env_start, env_end = map(int, after_name[45:49])
    return arg_start, arg_end, env_start, env_end
