"""What a job could leave behind on this machine, processes, threads and files, and a check that it has not.

``nothing_left`` is the check, as a context, for whatever starts processes from this one. Make this
process a child subreaper first (``become_subreaper``; Linux, see prctl(2)): what has lost its parent then
becomes a child of this process instead of init's, and is found.

This module may import nothing but the standard library and psutil.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types

__all__ = ["become_subreaper", "files", "nothing_left"]

_PR_SET_CHILD_SUBREAPER = 36
_SHARED = Path("/dev/shm")
_KEPT = "llutil_logs_"  # launch_agent without log_dir leaves its log files for its caller to read
_CREATOR = struct.Struct("=Q")
_CREATOR_AT = 16  # where an event page says which process made it


def become_subreaper() -> None:
    """Adopt the orphans of all processes below this one, from now on."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper, which needs Linux 3.4")


@contextmanager
def nothing_left(temporary: Path, seconds: float = 10.0) -> Iterator[None]:
    """A context whose end waits until what was begun in it has gone: processes, threads, files.

    ``temporary`` is the folder for temporary files. Processes that do not go are killed.

    :raises AssertionError: something is still there after so many ``seconds``; with its name.
    """
    processes, threads = _processes(), set(threading.enumerate())
    known = files(temporary)
    yield
    deadline = time.monotonic() + seconds
    while left := [
        *(_described(process) for process in _processes() - processes),
        *(repr(thread) for thread in set(threading.enumerate()) - threads if thread.is_alive()),
        *(str(path) for path in files(temporary) - known),
    ]:
        if time.monotonic() > deadline:
            for process in _processes() - processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            raise AssertionError(f"left {seconds:.0f} s after the end:\n" + "\n".join(left))
        time.sleep(0.05)
    _reap()


def files(folder: Path) -> set[Path]:
    """Files and folders of ours in a folder for temporary files, and in /dev/shm.

    What another test run on this machine, still alive, has put into /dev/shm is not ours.
    """
    found = {path for path in folder.glob("llutil*") if not path.name.startswith(_KEPT)}
    return found | {page for page in _SHARED.glob("llutil*") if not _foreign(page)}


def _foreign(page: Path) -> bool:
    with suppress(OSError, struct.error, psutil.NoSuchProcess):
        creator = psutil.Process(_CREATOR.unpack_from(page.read_bytes(), _CREATOR_AT)[0])
        return os.getpid() not in {process.pid for process in (creator, *creator.parents())}
    return False


def _processes() -> set[psutil.Process]:
    """Living processes below this one, except the one that multiprocessing keeps for itself."""
    tracker = getattr(resource_tracker._resource_tracker, "_pid", None)
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and process.pid != tracker:
                found.add(process)
    return found


def _described(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return f"process {process.pid} of {process.ppid()}: {' '.join(process.cmdline())[:300]}"
    return f"process {process.pid}, ending"


def _reap() -> None:
    """Wait for the dead that this process has adopted: nobody else will."""
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)
