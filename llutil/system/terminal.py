"""A terminal, and whether this process may use it.

This module may import only the standard library.
"""

from __future__ import annotations

import os

__all__ = ["is_ours"]


def is_ours(fd: int) -> bool:
    """Whether ``fd`` is no terminal that another job of the shell reads from."""
    try:
        return not os.isatty(fd) or os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # it is not this session's terminal, so no shell here reads from it
        return True
