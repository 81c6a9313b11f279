"""Ends a rank's process as a Python program ends, however the process was started.

A plain ``python train.py`` waits for threads and executors, runs what is registered with atexit,
joins multiprocessing's children, closes open files, and then exits. A forked worker cannot finalize
its interpreter like that: the interpreter also holds objects of the parent, such as files with data
in their buffers, and only the parent may close those. So ``forget_parent`` drops the parent's
registrations right after the fork, and ``end_program`` does the steps of CPython's finalization
(3.11, ``Py_FinalizeEx``) for what this process made.

This module may import nothing but the standard library. It imports no module that the worker has
not imported itself.
"""

# ruff: noqa: SLF001 - Python has no public functions for an interpreter's end

from __future__ import annotations

import _io
import _thread
import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from typing import NoReturn

__all__ = ["end_program", "forget_parent"]

# Seconds after which a rank reports what its end waits for, and seconds until each next report.
_FIRST_REPORT = 10.0
_NEXT_REPORT = 60.0


def forget_parent() -> None:
    """Drop what the parent registered for its own end. Call it first in a forked process.

    The parent's objects are frozen, so ``end_program`` does not close its files.
    """
    gc.freeze()
    atexit._clear()
    # A library registers itself once, when it is imported or first used. The parent did that, so
    # each is registered again here, in the order in which a program would have done it.
    if logging := sys.modules.get("logging"):
        del logging._handlerList[:]
        atexit.register(logging.shutdown)
    if weakref := sys.modules.get("weakref"):
        weakref.finalize._registry.clear()
        weakref.finalize._registered_with_atexit = False
    if process := sys.modules.get("multiprocessing.process"):
        process._children.clear()
    if util := sys.modules.get("multiprocessing.util"):
        util._finalizer_registry.clear()
        util._run_after_forkers()  # a queue, say, starts its own thread again
        atexit.register(util._exit_function)
    if pool := sys.modules.get("concurrent.futures.thread"):
        pool._threads_queues.clear()
    if pool := sys.modules.get("concurrent.futures.process"):
        pool._threads_wakeups.clear()


def end_program(status: int) -> NoReturn:
    """End this process with the exit code ``status``, as an interpreter does that has run its
    program.

    It waits for non-daemon threads, executors and multiprocessing's children, however long they
    take. Meanwhile it reports on standard error what it waits for.

    A signal handler of the user's may raise at any moment of it. That ends the step that it comes
    into, as in CPython, and no other one: each step is in a ``finally`` of the one before.
    """
    reporter = None
    try:
        reporter = _WaitReporter()
        _wait_for_threads()
    finally:
        try:
            _tell(reporter, "functions registered with atexit")
            atexit._run_exitfuncs()
        finally:
            try:
                _tell(reporter, "open files")
                _ignore_handled_signals()
            finally:
                try:
                    _close_files()
                finally:
                    os._exit(status)


def _tell(reporter: _WaitReporter | None, step: str) -> None:
    if reporter is not None:
        reporter.step = step


def _wait_for_threads() -> None:
    """Wait for non-daemon threads, until a signal handler raises (CPython 3.11,
    ``wait_for_thread_shutdown``).
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
    except BaseException:  # noqa: BLE001 - the user's handler may raise anything
        import traceback

        sys.stderr.write(f"Exception ignored in: {threading!r}\n{traceback.format_exc()}")


def _ignore_handled_signals() -> None:
    """Call no signal handler of the program's any more. CPython does not, either: it sets them back
    before it closes files (3.11, ``_PySignal_Fini``). A handler that raised would end a write in
    the middle.
    """
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            # Not SIG_IGN, which would also keep the signal from ending a wait.
            signal.signal(number, _do_nothing)


def _do_nothing(*_: object) -> None:
    """Handle a signal."""


def _close_files() -> None:
    """Close every open file that this process opened, as an interpreter's end would.

    A file that writes into another one, as ``gzip.GzipFile`` does, is closed before that one.

    Files are known by the classes of ``_io``, written in C, which all of them derive from. To ask
    for ``io``'s abstract classes takes a hundred times longer, once for each type in the process.
    """
    files = [found for found in gc.get_objects() if issubclass(type(found), _io._IOBase)]
    files.sort(key=_depth)
    standard = _standard_streams()
    for file in files:
        if any(file is stream for stream in standard) or issubclass(type(file), _io._RawIOBase):
            continue
        try:
            file.close()
        except Exception as error:  # noqa: BLE001 - the method may be the user's own
            # As Python does: report the error and go on. What was in the buffer is lost.
            with contextlib.suppress(Exception):
                sys.stderr.write(f"{file!r} could not be closed: {type(error).__name__}: {error}\n")
    for stream in standard:
        with contextlib.suppress(Exception):
            stream.flush()


def _standard_streams() -> tuple[_io._IOBase, ...]:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    buffers = tuple(getattr(stream, "buffer", None) for stream in streams)
    return tuple(stream for stream in (*streams, *buffers) if isinstance(stream, _io._IOBase))


def _depth(file: object) -> int:
    """A number that is smaller for a file that writes into another one than for that one."""
    kind = type(file)
    if issubclass(kind, _io._RawIOBase):
        return 4
    if kind in {_io.BufferedWriter, _io.BufferedRandom, _io.BufferedReader, _io.BufferedRWPair}:
        return 3
    if kind is _io.TextIOWrapper:
        return 1
    return 0 if issubclass(kind, _io._TextIOBase) else 2


class _WaitReporter:
    """Reports on standard error what a program's end waits for, if that takes long.

    ``step`` is the current step. Until it is set, the end waits for threads.
    """

    def __init__(self) -> None:
        self.step = ""
        self._began = time.monotonic()
        # If a thread cannot be started (a limit of processes), there are no reports.
        with contextlib.suppress(RuntimeError):
            # Not by ``threading``, which waits until the new thread runs.
            _thread.start_new_thread(self._report, ())

    def _report(self) -> None:
        time.sleep(_FIRST_REPORT)
        while True:
            waited = time.monotonic() - self._began
            text = f"the program has returned; for {waited:.0f} s its end waits for {self._what()}"
            with contextlib.suppress(Exception):
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
            time.sleep(_NEXT_REPORT)

    def _what(self) -> str:
        if self.step:
            children = _children()
            return f"{self.step}{f', child processes {children}' if children else ''}"
        main = threading.main_thread()
        names = [t.name for t in threading.enumerate() if not t.daemon and t is not main]
        return f"threads {', '.join(names)}" if names else "threads"


def _children() -> str:
    process = sys.modules.get("multiprocessing.process")
    # The set may change while it is read; then no child is named this time.
    with contextlib.suppress(RuntimeError):
        return ", ".join(child.name for child in process._children) if process else ""
    return ""
