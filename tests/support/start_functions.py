"""What workers do in the tests of how they are started: plain functions that import next to
nothing.
"""

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

__all__ = [
    "blas_threads",
    "collects",
    "crashes",
    "facts",
    "fail_once",
    "sleeps",
    "warm_facts",
    "writes",
]


def facts() -> dict[str, Any]:
    """What a worker finds around itself."""
    status = Path("/proc/self/status").read_text()
    descriptors = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder
            descriptors[int(entry.name)] = str(entry.readlink())
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
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


def warm_facts() -> dict[str, Any]:
    """What a worker of the fork server finds: of its server as it was just before the fork, and of
    its libraries.
    """
    server = os.getppid()
    found = {
        "server": server,
        "server's command": " ".join(_command(server)),
        "server's descriptors": _descriptors_once_forked(server),
        "server's threads": len(list(Path(f"/proc/{server}/task").iterdir())),
        "imported": sorted({"numpy", "torch"} & set(sys.modules)),
        "hash": hash("a text"),
        "blas threads": blas_threads(),
    }
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found |= {"torch threads": torch.get_num_threads(), "cuda": torch.cuda.is_initialized()}
    return found


def _descriptors_once_forked(server: int) -> list[str]:
    """What the server has open, once it has given back what it got for the fork and looks at no
    process any more: for 5 s at most.
    """
    deadline = time.monotonic() + 5
    while True:
        found = []
        for entry in sorted(Path(f"/proc/{server}/fd").iterdir(), key=lambda fd: int(fd.name)):
            with suppress(OSError):  # closed since
                found.append(str(entry.readlink()).partition(":[")[0])
        # Two workers at most: a server that is in the middle of a start has memory files, and more
        # pipes.
        passing = any("memfd" in kind or kind.startswith("/proc/") for kind in found)
        settled = not passing and found.count("pipe") <= 4
        if settled or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def blas_threads() -> int:
    """How many threads numpy's BLAS has, and this process with it."""
    import numpy as np  # noqa: F401 - for its BLAS

    return len(list(Path("/proc/self/task").iterdir()))


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


def end_server_once(folder: str) -> str:
    """Kill the parent in the first round; in the next, say which one it is."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        Path(folder, "first").write_text(str(os.getppid()))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return " ".join(_command(os.getppid()))


def _command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def kill_server_once(folder: str) -> str:
    """Rank 0 kills the process that it was started from, the first time."""
    mark = Path(folder, "killed")
    if os.environ["RANK"] == "0" and not mark.exists():
        mark.touch()
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.2)
    return "done"


def fail_once(folder: str) -> None:
    """Say who the parent is; fail in the first round."""
    restart = os.environ["TORCHELASTIC_RESTART_COUNT"]
    Path(folder, f"{restart}.{os.environ['RANK']}").write_text(str(os.getppid()))
    if restart == "0":
        raise ValueError("in the first round")
