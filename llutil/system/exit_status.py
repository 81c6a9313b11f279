"""Exit statuses in words, for people: the name of a signal, and what it usually means.

This module may import only the standard library.
"""

from __future__ import annotations

import signal

__all__ = ["EXIT_UNKNOWN", "exit_text"]

EXIT_UNKNOWN = 256
"""In place of an exit status that nobody can tell; a real one is less."""

_MEANINGS = {
    signal.SIGKILL: "often the kernel's out-of-memory killer, or somebody's kill -9",
    signal.SIGTERM: "asked to stop",
    signal.SIGINT: "interrupted, as by Ctrl-C",
    signal.SIGSEGV: "a memory fault in native code",
    signal.SIGBUS: "a bus error, often a full /dev/shm",
    signal.SIGABRT: "aborted itself, as a failed assertion in native code does",
    signal.SIGFPE: "an arithmetic fault in native code",
    signal.SIGILL: "an instruction that this CPU does not have",
}


def exit_text(status: int) -> str:
    """An exit status in words; negative means a signal's number, as ``subprocess`` has it."""
    if status == EXIT_UNKNOWN:
        return "an exit status that nobody can tell, since the process that forked it is gone"
    if status >= 0:
        return f"exit code {status}"
    try:
        known = signal.Signals(-status)
    except ValueError:
        return f"signal {-status}"
    meaning = _MEANINGS.get(known)
    return (
        f"signal {-status} ({known.name}: {meaning})"
        if meaning
        else f"signal {-status} ({known.name})"
    )
