"""Keeps descriptors 0, 1 and 2 of this process open, so that no file of ours gets such a number.

A process may be started with closed standard streams (``2>&-``). The next files that it opens get
the free numbers, and what a child or a library prints then goes into a socket or a selector of
ours. This module may import only the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["standard_fds_open"]


@contextmanager
def standard_fds_open() -> Iterator[None]:
    """Have ``/dev/null`` in place of closed standard streams for as long as the context lasts.
    Children inherit it.
    """
    opened = []
    try:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)
            opened.append(fd)
        os.close(fd)
        yield
    finally:
        for one in opened:
            os.close(one)
