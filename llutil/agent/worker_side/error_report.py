"""Reports how an entrypoint failed: on standard error as Python does, to the agent, and in torch's
error file.

It runs in the worker, and imports nothing of the agent but ``outcome_pipe``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
import types
from pathlib import Path

from llutil.agent.worker_side.outcome_pipe import ErrorNote, write_frame
from llutil.errors import LaunchError
from llutil.failure import FINAL_EXCEPTIONS

__all__ = ["flush_streams", "report_error"]

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""The file in which a rank that fails tells why, in torch's form."""
_LLUTIL = Path(__file__).parents[2]
_FRAMES_BEFORE_USER = (str(_LLUTIL) + os.sep, importlib.__file__, "<frozen importlib.")
"""Beginnings of the names of files whose frames come before the user's."""


def report_error(
    error: BaseException,
    outcome_fd: int | None,
    *,
    fatal: bool = False,
    bad_configuration: bool = False,
    exit_code: int | None = None,
) -> int:
    """Print the traceback as Python would, write the outcome and torch's error file. Returns the
    exit status.

    ``outcome_fd`` is None in a child process of the rank, which only prints. ``exit_code`` is given
    for a ``SystemExit`` of the user's function. Python prints no traceback for it, and torch writes
    no error file.
    """
    frames = _user_frames(error.__traceback__)
    # Not by an assignment: a class may refuse that, as a frozen dataclass does.
    BaseException.with_traceback(error, frames)
    text = _message_of(error)
    # An error of our own has no trace: the place in our code does not help a user.
    trace = "" if isinstance(error, LaunchError) else _trace_of(error, frames, text)
    if exit_code is not None:
        assert isinstance(error, SystemExit)
        text = f"the function called {_call_of(error)} and returned no value"
    elif isinstance(error, SystemExit):
        text = f"{_call_of(error)} was called before the function began, by a module's code"
    shown = None if isinstance(error, SystemExit) else trace or f"{text}\n"
    if outcome_fd is None:
        if shown is not None:
            _print_error(error, frames, shown)
        return 1
    final = _final_exception(error)
    note = ErrorNote(
        kind=type(error).__qualname__,
        text=text,
        trace=trace,
        fatal=fatal or bool(final),
        bad_configuration=bad_configuration,
        at=time.monotonic(),
        exit_code=exit_code,
        final_exception=final,
    )
    flush_streams()
    if exit_code is None:
        _write_error_file(note)
    with contextlib.suppress(OSError):  # the agent is gone, or user code has closed the pipe
        write_frame(outcome_fd, note)
    if shown is not None:
        # Last: the user's own excepthook may end the process.
        _print_error(error, frames, shown)
        flush_streams()
    return 1 if exit_code is None else exit_code


def _final_exception(error: BaseException) -> str:
    """The class of ``FINAL_EXCEPTIONS`` that ``error`` is an instance of; empty if of none. Airflow
    is not imported for that.
    """
    for one in type(error).__mro__:
        # A module's name may be any object.
        if one.__name__ in FINAL_EXCEPTIONS and str(one.__module__).split(".")[0] == "airflow":
            return one.__name__
    return ""


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as problem:  # noqa: BLE001 - the user's own class
        return f"(its message cannot be shown: {type(problem).__qualname__})"


def _trace_of(error: BaseException, frames: types.TracebackType | None, text: str) -> str:
    """The error as Python shows it; or what can be shown of it, where the class hinders that. One
    whose ``__getattr__`` raises another error than AttributeError does (CPython 3.11).
    """
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:  # noqa: BLE001 - the user's own class
        calls = "".join(traceback.format_tb(frames))
        head = "Traceback (most recent call last):\n" if calls else ""
        return f"{head}{calls}{type(error).__qualname__}: {text}\n"


def _call_of(request: SystemExit) -> str:
    try:
        return f"sys.exit({request.code!r})"
    except BaseException:  # noqa: BLE001 - the user's own class
        return f"sys.exit(<{type(request.code).__qualname__}>)"


def _print_error(error: BaseException, frames: types.TracebackType | None, text: str) -> None:
    """Print an error as Python would. Neither an excepthook of the user's nor a closed stream may
    hide it.
    """
    try:
        if isinstance(error, LaunchError):
            sys.stderr.write(text)
        else:
            sys.excepthook(type(error), error, frames)
    except BaseException:  # noqa: BLE001 - as above
        with contextlib.suppress(Exception):
            sys.stderr.write(text)


def _user_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    """``trace`` without the first frames, which are ours and the import system's and tell a user
    nothing.
    """
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_FRAMES_BEFORE_USER):
        trace = trace.tb_next
    return trace


def _write_error_file(note: ErrorNote) -> None:
    """Write the error where torch's tools look for it, in the form of torch's error handler (torch
    2.13). If ``@record`` has written it already, that file stays.
    """
    path = os.environ.get(_ERROR_FILE)
    if not path or Path(path).exists():
        return
    epoch = str(int(time.time()))  # noqa: TID251 - torch's file holds it
    extra = {"py_callstack": note.trace, "timestamp": epoch}
    body = {"message": {"message": f"{note.kind}: {note.text}", "extraInfo": extra}}
    try:
        Path(path).write_text(json.dumps(body), encoding="utf-8")
    except OSError as error:
        # The failure still goes to the agent through the pipe. torch cannot read half a file.
        with contextlib.suppress(OSError, ValueError):
            Path(path).unlink(missing_ok=True)
            sys.stderr.write(f"the error file {path} could not be written: {error}\n")


def flush_streams() -> None:
    """Flush the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        # A stream may be closed or broken, or an object of the user's; it must not hide the error.
        with contextlib.suppress(Exception):
            stream.flush()
