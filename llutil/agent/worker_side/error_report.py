"""Tells how an entrypoint failed: to people as Python would, to the agent, and to torch's tools.

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

__all__ = ["flush", "tell_error"]

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
_LLUTIL = Path(__file__).parents[2]
_LEADING = (str(_LLUTIL) + os.sep, importlib.__file__, "<frozen importlib.")
"""Files whose frames come before the user's."""


def tell_error(
    error: BaseException,
    outcome_fd: int | None,
    *,
    fatal: bool = False,
    bad_configuration: bool = False,
) -> int:
    """Print the traceback as Python would, write the outcome and torch's error file; give the exit
    status. ``outcome_fd`` None is for a child of the rank: it only prints.
    """
    frames = _own_frames(error.__traceback__)
    error.__traceback__ = frames
    text = _said(error)
    # Our own words have no trace: where in our code they were said helps nobody.
    own = isinstance(error, LaunchError)
    trace = "" if own else "".join(traceback.format_exception(type(error), error, frames))
    if isinstance(error, SystemExit):
        text = f"the function called sys.exit({error.code!r}) and returned no value"
    else:
        _show(error, frames, trace or f"{text}\n")
    if outcome_fd is None:
        return 1
    note = ErrorNote(
        kind=type(error).__qualname__,
        text=text,
        trace=trace,
        fatal=fatal,
        bad_configuration=bad_configuration,
        at=time.monotonic(),
    )
    flush()
    _write_error_file(note)
    with contextlib.suppress(BrokenPipeError):  # no agent is left to tell
        write_frame(outcome_fd, note)
    return 1


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001 - the user's own class
        return f"(its message cannot be shown: {type(problem).__qualname__})"


def _show(error: BaseException, frames: types.TracebackType | None, text: str) -> None:
    """Print an error as Python would. Neither a hook of the user's nor a closed stream may hide
    it.
    """
    try:
        if isinstance(error, LaunchError):
            sys.stderr.write(text)
        else:
            sys.excepthook(type(error), error, frames)
    except BaseException:  # noqa: BLE001 - as above
        with contextlib.suppress(Exception):
            sys.stderr.write(text)


def _own_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    """``trace`` without the frames that lead to the user's code, ours and the import system's: they
    say nothing.
    """
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_LEADING):
        trace = trace.tb_next
    return trace


def _write_error_file(note: ErrorNote) -> None:
    """Say it where torch's tools look, in the form of torch's error handler (torch 2.13);
    ``@record`` goes first.
    """
    path = os.environ.get(_ERROR_FILE)
    if not path or Path(path).exists():
        return
    epoch = str(int(time.time()))  # noqa: TID251 - torch's file wants it
    extra = {"py_callstack": note.trace, "timestamp": epoch}
    body = {"message": {"message": f"{note.kind}: {note.text}", "extraInfo": extra}}
    # A full disk must not hide the failure itself, which goes by the pipe.
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps(body), encoding="utf-8")


def flush() -> None:
    """Write out what the standard streams still hold."""
    for stream in (sys.stdout, sys.stderr):
        # A closed or broken stream has nothing left to lose, and may be an object of the user's
        # own.
        with contextlib.suppress(Exception):
            stream.flush()
