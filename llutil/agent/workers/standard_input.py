"""The agent's standard input, for the one rank of a node that has no other.

Several ranks would take each other's input, so they get an empty one.

A rank leads a session of its own, and the agent's terminal is not the controlling one there. Linux
lets such a process read from a terminal and change its settings, and sends it no signal for that
(6.18, ``__tty_check_change``). Ctrl-C reaches the agent alone, which stops the job in order. This
module may import only the standard library and ``llutil.system.terminal``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Iterator

from llutil.system.terminal import is_ours

__all__ = ["standard_input", "terminal_settings_restored"]

_STDIN = 0


def standard_input(ranks: int) -> int | None:
    """The descriptor of the standard input of each of ``ranks`` ranks on this node; None for an
    empty one.
    """
    if ranks > 1 or sys.__stdin__ is None:  # it was closed, and 0 may be any other file
        return None
    try:
        os.fstat(_STDIN)
    except OSError:  # it has been closed since
        return None
    return _STDIN if is_ours(_STDIN) else None


@contextlib.contextmanager
def terminal_settings_restored(stdin: int | None) -> Iterator[None]:
    """After the block, the terminal ``stdin`` has the settings from before. A rank that is killed
    while it edits a line leaves a terminal that shows nothing of what is typed.
    """
    before = None
    with contextlib.suppress(termios.error):
        if stdin is not None and os.isatty(stdin):
            before = termios.tcgetattr(stdin)
    try:
        yield
    finally:
        # In the background the terminal is somebody else's, and the change would stop this process.
        if stdin is not None and before is not None and is_ours(stdin):
            with contextlib.suppress(termios.error):  # it has been closed
                termios.tcsetattr(stdin, termios.TCSANOW, before)
