"""The exit status that a ``SystemExit`` asks for, as in plain Python (CPython 3.11,
``handle_system_exit``). This module may import only the standard library.
"""

from __future__ import annotations

import contextlib
import sys

__all__ = ["exit_status"]

_LONG = range(-(1 << 63), 1 << 63)
"""The numbers that a C long holds. Python exits with -1 for another one."""


def exit_status(request: SystemExit) -> int:
    """The exit status, 0 to 255. A code that is neither None nor a number is printed on standard
    error, and the status is 1.
    """
    match request.code:
        case None:
            return 0
        case int():
            # A plain number: of an enum's, ``in`` would look at all numbers, one by one.
            code = int.__index__(request.code)
            return (code if code in _LONG else -1) & 0xFF
        case text:
            # The stream may be closed, or the object be unable to show itself.
            with contextlib.suppress(Exception):
                sys.stderr.write(f"{text}\n")
            return 1
