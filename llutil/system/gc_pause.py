"""Pauses Python's garbage collector while modules are imported: the objects that they make stay.

The collector looks at these objects again and again. That took a tenth of the time of torch's
import, and half the time of the imports after it (torch 2.13, Python 3.11). This module may import
only the standard library.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["gc_paused"]


@contextmanager
def gc_paused(*, freeze: bool = False) -> Iterator[None]:
    """A context in which the garbage collector does not run.

    With ``freeze``, it never looks at the objects that exist when the context ends. Freeze only in
    a process of the launcher's own, such as the fork server: a caller's garbage would stay too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if was_enabled:
            gc.enable()
