"""Opens descriptors 0, 1 and 2 of this process, so that no file of ours gets such a number.

A process may be started with closed standard streams (``2>&-``). The next files that it opens get
the free numbers, and what a child or a library prints then goes into a socket or a selector of
ours. This module may import only the standard library.
"""

from __future__ import annotations

import os

__all__ = ["open_standard_fds"]


def open_standard_fds() -> None:
    """Have ``/dev/null`` in place of closed standard streams, for good. Children inherit it.

    Nobody closes them again: they are the whole process's, and a launch in another thread may have
    begun to count on them.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
