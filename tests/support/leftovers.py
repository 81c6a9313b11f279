"""What a job could leave behind on this machine, processes, threads and files, and a check that it
has not.

``nothing_left`` is the check, as a context, for whatever starts processes from this one. A process
that has lost its parent is known by a variable of its environment (``MARK``), which all that is
started inside the context inherits, unless it is forked from this very process.

This module may import nothing but the standard library and psutil.
"""

from __future__ import annotations

import os
import secrets
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types

__all__ = ["MARK", "files", "nothing_left"]

MARK = "LLUTIL_TEST"
"""The variable whose value tells the processes of one check from all others."""
_SHARED = Path("/dev/shm")
_KEPT = "llutil_logs_"  # launch_agent without log_dir leaves its log files for its caller to read
_CREATOR = struct.Struct("=Q")
_CREATOR_AT = 16  # where an event page says which process made it


@contextmanager
def nothing_left(temporary: Path, seconds: float = 10.0) -> Iterator[None]:
    """A context whose end waits until what was begun in it has gone: processes, threads, files.

    ``temporary`` is the folder for temporary files. Processes that do not go are killed.

    :raises AssertionError: something is still there after so many ``seconds``; with its name.
    """
    before = set(psutil.pids())
    threads, known = set(threading.enumerate()), _files(temporary)
    mark = os.environ[MARK] = secrets.token_hex(8)
    try:
        yield
    finally:
        del os.environ[MARK]
    deadline = time.monotonic() + seconds
    while True:
        processes = _processes(mark, set(psutil.pids()) - before)
        left = [
            *(_described(process) for process in processes),
            *(repr(thread) for thread in set(threading.enumerate()) - threads if thread.is_alive()),
            *(str(path) for path in _files(temporary) - known if not _foreign(path)),
        ]
        if not left:
            break
        if time.monotonic() > deadline:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            raise AssertionError(f"left {seconds:.0f} s after the end:\n" + "\n".join(left))
        time.sleep(0.05)


def files(folder: Path) -> set[Path]:
    """Files and folders of ours in a folder for temporary files, and in /dev/shm.

    What another test run on this machine, still alive, has put into /dev/shm is not ours. Log files
    are meant to stay after a failure, and are not looked at.
    """
    return {path for path in _files(folder) if not _foreign(path)}


def _files(folder: Path) -> set[Path]:
    """The same, with those of other test runs."""
    found = {path for path in folder.glob("llutil*") if not path.name.startswith(_KEPT)}
    pages = {page for page in _SHARED.glob("llutil*") if page.is_file()}
    return found | pages | set(_SHARED.glob("llutil-*/*"))


def _foreign(path: Path) -> bool:
    if not path.is_relative_to(_SHARED):
        return False
    with suppress(OSError, struct.error, ValueError, psutil.NoSuchProcess):
        creator = psutil.Process(_creator_of(path))
        return os.getpid() not in {process.pid for process in (creator, *creator.parents())}
    return False


def _creator_of(path: Path) -> int:
    """The process that made a page, or an agent's socket, whose name tells it."""
    if path.is_socket():
        return int(path.name.split(".")[0])
    return int(_CREATOR.unpack_from(path.read_bytes(), _CREATOR_AT)[0])


def _processes(mark: str, pids: Iterable[int]) -> set[psutil.Process]:
    """Those of these processes that live, and are below this one or have the mark, but for
    multiprocessing's own helper.
    """
    helper = getattr(resource_tracker._resource_tracker, "_pid", None)
    found = set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            if pid == helper or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == mark or _is_below(process):
                found.add(process)
    return found


def _is_below(process: psutil.Process) -> bool:
    return os.getpid() in {parent.pid for parent in process.parents()}


def _described(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return f"process {process.pid} of {process.ppid()}: {' '.join(process.cmdline())[:300]}"
    return f"process {process.pid}, ending"
