"""Forks of the test run itself, which has torch and gRPC imported."""

from __future__ import annotations

import gc
import os

__all__ = ["fork"]


def fork() -> int:
    """``os.fork``, whose child leaves uncollected what earlier tests left for the collector.

    A finalizer of a native object (a gRPC channel's) can wait for threads that only the parent has, and then the
    child hangs wherever the collector happens to run.
    """
    pid = os.fork()
    if pid == 0:
        gc.freeze()
    return pid
