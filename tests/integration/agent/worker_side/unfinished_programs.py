"""Functions that return while something of theirs is still to be finished.

Each takes a folder, and leaves a file there that holds "done" once all is finished.
"""

from __future__ import annotations

import atexit
import gzip
import io
import logging
import logging.handlers
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["PROGRAMS"]

_kept: list[Any] = []
"""Keeps objects until the program's end, as a script's global variables would."""


def _finish(folder: str) -> None:
    time.sleep(0.3)
    (Path(folder) / "file").write_text("done")


class _Target:
    """What a finalizer can be bound to."""


def open_file(folder: str) -> str:
    file = (Path(folder) / "file").open("w")
    file.write("done")
    _kept.append(file)
    return "returned"


def compressed_file(folder: str) -> str:
    file = gzip.open(Path(folder) / "file.gz", "wt")  # noqa: SIM115 - it stays open
    file.write("done")
    _kept.append(file)
    return "returned"


def thread(folder: str) -> str:
    threading.Thread(target=_finish, args=(folder,)).start()
    return "returned"


def executor(folder: str) -> str:
    ThreadPoolExecutor(1).submit(_finish, folder)
    return "returned"


def function_at_exit(folder: str) -> str:
    atexit.register(_finish, folder)
    return "returned"


def finalizer(folder: str) -> str:
    target = _Target()
    _kept.append(target)
    weakref.finalize(target, _finish, folder)
    return "returned"


def child_process(folder: str) -> str:
    multiprocessing.get_context("fork").Process(target=_finish, args=(folder,)).start()
    return "returned"


def _receive(queue: Any, count: int, folder: str) -> None:
    for _ in range(count):
        queue.get(timeout=30)
    _finish(folder)


def queue_items(folder: str) -> str:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    context.Process(target=_receive, args=(queue, 100, folder)).start()
    for _ in range(100):
        queue.put("x" * 10_000)
    return "returned"


def buffered_log(folder: str) -> str:
    target = logging.FileHandler(Path(folder) / "file")
    handler = logging.handlers.MemoryHandler(1000, flushLevel=logging.CRITICAL, target=target)
    logger = logging.getLogger("unfinished")
    logger.addHandler(handler)
    logger.warning("done")
    return "returned"


def temporary_folder(folder: str) -> str:
    own = tempfile.TemporaryDirectory(dir=folder, prefix="temporary-")
    _kept.append(own)
    weakref.finalize(own, _finish, folder)
    return "returned"


PROGRAMS: dict[str, Callable[[str], str]] = {
    function.__name__: function
    for function in (
        open_file,
        compressed_file,
        thread,
        executor,
        function_at_exit,
        finalizer,
        child_process,
        queue_items,
        buffered_log,
        temporary_folder,
    )
}


def _stop(*_: object) -> None:
    sys.exit(143)


class _StoppedFile(io.StringIO):
    """While it is closed, or flushed as a standard stream is before a value is handed in, the
    process is asked to stop.
    """

    def flush(self) -> None:
        if sys.stdout is self:
            sys.stdout = sys.__stdout__
            signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        if not self.closed:
            signal.raise_signal(signal.SIGTERM)
        super().close()


def _stop_main_thread_at_its_end() -> None:
    main, limit = threading.main_thread().ident, time.monotonic() + 30
    while time.monotonic() < limit:
        frame = sys._current_frames()[main or 0]
        if frame.f_code is threading._shutdown.__code__:  # type: ignore[attr-defined]
            break
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(2)


def stopped_at_its_end(folder: str, during: str) -> str:
    """A handler raises while the program's end waits for threads, calls functions registered with
    atexit, or closes files, or before that, while its value is handed in.
    """
    signal.signal(signal.SIGTERM, _stop)
    atexit.register((Path(folder) / "function").touch)
    match during:
        case "threads":
            threading.Thread(target=_stop_main_thread_at_its_end).start()
        case "functions":
            atexit.register(signal.raise_signal, signal.SIGTERM)
        case "value":
            sys.stdout = _StoppedFile()
        case _:
            _kept.append(_StoppedFile())
    return open_file(folder)


def forked_child_raises() -> str:
    pid = os.fork()
    if pid == 0:
        raise ValueError("the child's own")
    return f"parent of a child with status {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"


def forked_child_returns() -> str:
    pid = os.fork()
    if pid == 0:
        return "child"
    return f"parent of a child with status {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"


def file_on_a_full_disk() -> str:
    file = Path("/dev/full").open("w")  # noqa: SIM115 - it stays open
    file.write("lost")
    _kept.append(file)
    return "returned"


def never_ends() -> str:
    threading.Thread(target=threading.Event().wait, name="saver").start()
    return "returned"


def drawn() -> list[Any]:
    """What a rank draws that sets no seed."""
    import random

    import numpy as np
    import torch

    return [
        torch.initial_seed(),
        torch.rand(1).item(),
        torch.randperm(8).tolist(),
        float(np.random.rand()),
        random.random(),
    ]
