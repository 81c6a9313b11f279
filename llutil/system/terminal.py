"""A terminal, and whether this process may use it.

This module may import only the standard library.
"""

from __future__ import annotations

import os

__all__ = ["TERMINAL", "is_ours", "terminal_path"]

TERMINAL = "LLUTIL_TERMINAL"
"""The environment variable that holds the path of the terminal at which a person has launched a
job.
"""
_STDIN, _STDERR = 0, 2


def is_ours(fd: int) -> bool:
    """Whether ``fd`` is no terminal that another job of the shell reads from."""
    try:
        return not os.isatty(fd) or os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # it is not this session's terminal, so no shell here reads from it
        return True


def terminal_path() -> str:
    """The path of the terminal that this process's standard input is, or else its standard error;
    empty without one, and in the background.
    """
    for fd in (_STDIN, _STDERR):
        try:
            if os.isatty(fd) and is_ours(fd):
                return os.ttyname(fd)
        except OSError:  # the terminal is in another mount namespace, as with "docker exec"
            continue
    return ""
