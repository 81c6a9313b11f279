"""``llutil run`` as a process of its own, on a terminal if wanted, and a script for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["STEPS", "llutil_command", "own_environment"]

_ROOT = str(Path(__file__).parents[2])

STEPS = """
import os, signal, sys, time
from llutil.launcher import worker

done = worker.resume()
for step in range(done.step + 1 if done else 1, 100000):
    time.sleep(0.01)
    todo = worker.step(step, loss=1 / step)
    if todo.checkpoint:
        with worker.checkpoint(step) as folder:
            time.sleep(0.3)  # as long as three of torchrun's monitor intervals
            open(os.path.join(folder, str(worker.rank())), "w").close()
    if todo.stop:
        print(f"rank {worker.rank()} stops after step {step}", flush=True)
        break
"""
"""A script whose ranks make steps until they are asked to stop."""


# When a process ends that a terminal belongs to, the kernel drops what nobody has read there yet.
_SHELL = """
import signal
os.login_tty(os.dup(0))
child = os.fork()
if child:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    input()
    os._exit(0)
"""


def llutil_command(*words: str, on_terminal: bool = False) -> list[str]:
    """The command line of ``llutil``, whose ranks have the PYTHONPATH of the test run. With
    ``on_terminal`` it is the child of a process whose terminal is its standard input, as a shell's;
    that process then says "ended with" the exit code, and ends at the next line that is typed.
    """
    code = f"import os; os.environ['PYTHONPATH'] = {os.environ.get('PYTHONPATH', '')!r}\n"
    if on_terminal:
        code += _SHELL
    code += "from llutil.command_line.main import console\nconsole()\n"
    return [sys.executable, "-u", "-c", code, *words]


def own_environment(**more: str) -> dict[str, str]:
    """The environment of that process itself, which finds torch."""
    return {**os.environ, "PYTHONPATH": _ROOT, **more}
