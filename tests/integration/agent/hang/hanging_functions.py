"""Functions whose ranks stop making steps. They need no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llutil.events.rank_slot import Doing
from llutil.launcher import worker

STEPS = 4
# A function whose frame looks like one of torch's collectives.
_SOURCE = "def all_reduce(wait): wait()"
_PLACE = "/v/site-packages/torch/distributed/distributed_c10d.py"


def all_reduce(folder: str, step: int) -> None:
    """Wait until all ranks have come to this step."""
    names: dict[str, Callable[..., None]] = {}
    exec(compile(_SOURCE, _PLACE, "exec"), names)
    mark = f"{worker.restart_count()}-{step}-"
    Path(folder, f"{mark}{worker.rank()}").touch()

    def wait() -> None:
        while len(list(Path(folder).glob(f"{mark}*"))) < worker.world_size():
            time.sleep(0.01)

    names["all_reduce"](wait)


def take_lock_twice() -> None:
    """Never return."""
    lock = threading.Lock()
    with lock, lock:
        pass


def train(folder: str) -> int:
    """Rank 1 hangs in a lock in its third step, in the first round."""
    for step in range(1, STEPS + 1):
        if step == 3 and worker.rank() == 1 and worker.restart_count() == 0:
            take_lock_twice()
        all_reduce(folder, step)
        worker.progress(step, STEPS)
    return worker.restart_count()


def is_stopped_and_held_for(seconds: float) -> str:
    """SIGSTOP comes in the middle, and later SIGCONT; then the launcher holds the rank."""
    worker.progress(1)
    subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)
    worker.progress(2)
    slot = worker.events().slot(0)
    slot.doing = Doing.HELD  # as ``worker.step`` does
    time.sleep(seconds)
    slot.doing = Doing.STEPS
    worker.progress(3)
    return "went on"


class _Model:
    def __del__(self) -> None:
        take_lock_twice()


def hangs_while_its_model_is_dropped() -> Any:
    """The last step is done and the function returns, and yet it does not."""
    model = _Model()
    worker.progress(1, 1)
    return repr(model)


def never_reports(seconds: float) -> str:
    """A rank that calls nothing of the launcher's."""
    time.sleep(seconds)
    return "went well"
