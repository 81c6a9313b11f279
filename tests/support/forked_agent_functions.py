"""What ranks do in the tests of agents that a server forks."""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["facts", "fails", "meet", "variable", "waits"]


def facts() -> dict[str, Any]:
    """What a rank finds, and what it draws at random."""
    import numpy as np
    import torch

    return {
        "environment": dict(os.environ),
        "path": sys.path,
        "argv": sys.argv,
        "cwd": str(Path.cwd()),
        "limits": Path("/proc/self/limits").read_text(),
        "umask": Path("/proc/self/status").read_text().split("Umask:")[1].split()[0],
        "nice": os.nice(0),
        "cpus": sorted(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
        "drawn": [random.random(), float(np.random.rand()), float(torch.rand(1)), os.getpid()],
    }


def variable(name: str) -> str | None:
    """A variable of the rank's environment."""
    return os.environ.get(name)


def waits(folder: str) -> str:
    """Leave this process's number in ``folder``, and wait for the file ``go``."""
    mark = Path(folder, f"rank-{os.environ['RANK']}")
    new = mark.with_name(f"new-{mark.name}")
    new.write_text(str(os.getpid()))
    new.rename(mark)
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return "let go"


def meet(folder: str, number: int) -> int:
    """Wait for a rank of another job; this process's number."""
    Path(folder, f"here-{number}").touch()
    while not Path(folder, f"here-{1 - number}").exists():
        time.sleep(0.01)
    return os.getpid()


def fails() -> NoReturn:
    """Fail."""
    raise ValueError("no such")
