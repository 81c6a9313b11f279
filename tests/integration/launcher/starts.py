"""What workers do in the tests of how they are started: plain functions that import next to nothing."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["collects", "crashes", "facts", "imported", "sleeps", "writes"]


def facts() -> dict[str, Any]:
    """What a worker finds around itself."""
    status = Path("/proc/self/status").read_text()
    descriptors = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder
            descriptors[int(entry.name)] = str(entry.readlink())
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "descriptors": descriptors,
        "environ": dict(os.environ),
        "path": list(sys.path),
        "blocked": next(line for line in status.splitlines() if line.startswith("SigBlk")),
        "ignored": next(line for line in status.splitlines() if line.startswith("SigIgn")),
        "sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "stdin": sys.stdin.read(),
    }


def imported() -> list[str]:
    """Which of the heavy packages were there before the worker was."""
    return sorted({"numpy", "torch"} & set(sys.modules))


def collects() -> int:
    """Have the collector look for garbage; how much it found."""
    return gc.collect()


def crashes() -> None:
    """Do what only native code can."""
    ctypes.string_at(0)


def sleeps() -> None:
    """Live for as long as any test."""
    time.sleep(60)


def writes() -> None:
    """One line on each stream."""
    print("to stdout")
    print("to stderr", file=sys.stderr)
