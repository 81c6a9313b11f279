"""Signals by their names, as ``signals_to_handle`` lists them.

This module may import only the standard library and ``llutil.system.send_signal``.
"""

from __future__ import annotations

import signal

from llutil.system.send_signal import STOP_SIGNALS

__all__ = ["DEFAULT_SIGNALS", "signals_named"]

DEFAULT_SIGNALS = ",".join(number.name for number in STOP_SIGNALS)
"""torch's default for ``signals_to_handle`` (2.13)."""

_NEVER = {
    signal.SIGKILL: "cannot be handled",
    signal.SIGSTOP: "cannot be handled",
    signal.SIGCHLD: "is how the kernel tells of the end of a child",
    signal.SIGIO: "is how the kernel tells of input",
    **dict.fromkeys(
        (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL), "comes of a crash"
    ),
}


def signals_named(names: str) -> tuple[signal.Signals, ...]:
    """The signals in ``names``, a list with commas.

    :raises ValueError: a name is not a signal's, or its signal cannot end a job in order. torch
        logs such a name and goes on (2.13); then the signal that somebody counts on kills the job.
    """
    found = []
    for name in (part.strip() for part in names.split(",")):
        try:
            number = signal.Signals[name]
        except KeyError:
            raise ValueError(f"is {names!r}; {name!r} names no signal") from None
        if number in _NEVER:
            raise ValueError(f"is {names!r}; {name!r} {_NEVER[number]}")
        found.append(number)
    return tuple(dict.fromkeys(found))
