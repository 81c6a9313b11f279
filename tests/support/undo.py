"""A process that undoes what somebody has set up on this machine, also when he is killed.

    python -m tests.support.undo '[["ip", "netns", "del", "one"], ...]'

It waits until its standard input closes, and then runs these command lines in turn. One that fails
does not keep the next ones from running: what it would undo may never have been done.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["undone"]

_ROOT = Path(__file__).parents[2]
_SECONDS = 20.0  # for one command


@contextmanager
def undone(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Run these commands at the end of the context, or when this process is no more."""
    orders = json.dumps([list(command) for command in commands])
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, orders],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.communicate(timeout=_SECONDS * (1 + len(commands)))


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    for command in json.loads(sys.argv[1]):
        subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )


if __name__ == "__main__":
    _main()
