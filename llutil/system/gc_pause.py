"""Pauses Python's garbage collector: while modules are imported, and while a process forks.

The objects that an import makes stay. The collector looks at them again and again. That took a
tenth of the time of torch's import, and half the time of the imports after it (torch 2.13, Python
3.11). This module may import only the standard library.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["fork_without_gc", "gc_paused"]


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


def fork_without_gc() -> int:
    """``os.fork``; the child never collects objects of the parent.

    A finalizer of a native object (a gRPC channel's) may wait for a thread that exists only in the
    parent, or free what such a thread still used. Then the child hangs, or dies of SIGSEGV. Garbage
    collection is off from before the fork, because fork handlers of other libraries run in the
    child before ``os.fork`` returns there (Airflow 3.3's disposes of its database engine).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        pid = os.fork()
        if pid == 0:
            gc.freeze()
        return pid
    finally:
        if collects:
            gc.enable()
