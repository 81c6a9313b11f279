"""Python's garbage collector, while there is none to collect: imports make objects that stay.

To look at them again and again, as they become more, took a tenth of torch's import, and half of
that of what is imported after it (torch 2.13, Python 3.11). This module may import nothing but the
standard library.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["gc_paused"]


@contextmanager
def gc_paused(*, freeze: bool = False) -> Iterator[None]:
    """A time in which the collector rests. ``freeze``: it never looks at what is there at the end
    of it.

    Freeze only in a process that is the launcher's own, as a server of workers is: a caller's
    garbage would stay too.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if collects:
            gc.enable()
