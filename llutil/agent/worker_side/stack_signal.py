"""Lets a rank's agent see the stacks of the rank's threads, without the rank's help.

``offer_stacks`` has faulthandler write them into a memory file whenever ``STACK_SIGNAL`` comes. It
does so in C, whatever the threads are busy with. The agent finds the file among the rank's open
files by its name. A file in memory needs no path, and no room on a disk.

The signal is a real-time one, which neither torch, Python nor a workload manager sends. This module
may import only the standard library.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal

__all__ = ["STACK_SIGNAL", "offer_stacks", "stack_file_name"]

STACK_SIGNAL = signal.SIGRTMIN + 13
"""The signal that asks a rank for its stacks. It would end a process that has no handler for it."""


def offer_stacks() -> None:
    """Write this process's stacks into its memory file whenever the signal comes."""
    # A sandbox may refuse a memory file, or have no room for it: then there are no stacks.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        fd = os.memfd_create(stack_file_name(os.getpid()), os.MFD_CLOEXEC)
        faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True, chain=False)


def stack_file_name(pid: int) -> str:
    """The name of the memory file of process ``pid``; a fork of it has another one."""
    return f"llutil-stacks-{pid}"
