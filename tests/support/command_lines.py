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


def llutil_command(*words: str, on_terminal: bool = False) -> list[str]:
    """The command line of ``llutil``, whose ranks have the PYTHONPATH of the test run. With
    ``on_terminal``, it makes its standard input its terminal first.
    """
    code = f"import os; os.environ['PYTHONPATH'] = {os.environ.get('PYTHONPATH', '')!r}; "
    if on_terminal:
        code += "os.login_tty(os.dup(0)); "
    code += "from llutil.command_line.main import console; console()"
    return [sys.executable, "-u", "-c", code, *words]


def own_environment(**more: str) -> dict[str, str]:
    """The environment of that process itself, which finds torch."""
    return {**os.environ, "PYTHONPATH": _ROOT, **more}
