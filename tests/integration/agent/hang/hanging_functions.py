"""Functions whose ranks stop making steps. They need no torch."""

from __future__ import annotations

import os
import signal
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

    def wait() -> None:
        Path(folder, f"{mark}{worker.rank()}").touch()
        while len(list(Path(folder).glob(f"{mark}*"))) < worker.world_size():
            time.sleep(0.01)

    names["all_reduce"](wait)


def take_lock_twice(before: Callable[[], None] = lambda: None) -> None:
    """Call ``before``, and never return."""
    before()
    lock = threading.Lock()
    with lock, lock:
        pass


def hold() -> None:
    """Have no time count, however long this rank takes to the place where it hangs."""
    worker.events().slot(int(os.environ["LOCAL_RANK"])).doing = Doing.HELD


def train(folder: str) -> int:
    """Rank 1 hangs in a lock in its third step, in the first round. Time counts from then on, for
    all ranks of its node, and when rank 0 waits for it.
    """
    hold()

    def release() -> None:
        while not Path(folder, "0-3-0").exists():
            time.sleep(0.01)
        for rank in range(int(os.environ["LOCAL_WORLD_SIZE"])):
            worker.events().slot(rank).doing = Doing.STEPS

    for step in range(1, STEPS + 1):
        if step == 3 and worker.rank() == 1 and worker.restart_count() == 0:
            take_lock_twice(release)
        all_reduce(folder, step)
        worker.progress(step, STEPS)
    return worker.restart_count()


def is_stopped_and_held_for(seconds: float) -> str:
    """SIGSTOP comes in the middle, and later SIGCONT; then the launcher holds the rank. At each
    moment it is one or the other, however long something takes in between.
    """
    slot, rank = worker.events().slot(0), os.getpid()
    slot.doing = Doing.HELD  # as ``worker.step`` does
    worker.progress(1)
    child = os.fork()
    if child == 0:
        try:
            while not is_stopped(rank):
                time.sleep(0.01)
            slot.doing = Doing.STEPS
            time.sleep(seconds)
            slot.doing = Doing.HELD
            os.kill(rank, signal.SIGCONT)
        finally:
            os._exit(0)
    os.kill(rank, signal.SIGSTOP)
    time.sleep(seconds)
    worker.progress(2)
    os.waitpid(child, 0)
    return "went on"


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process."""
    return "T (stopped)" in Path(f"/proc/{pid}/status").read_text()


class _Model:
    def __del__(self) -> None:
        take_lock_twice(lambda: worker.progress(1, 1))  # only now: time counts from its report on


def hangs_while_its_model_is_dropped() -> Any:
    """The last step is done and the function returns, and yet it does not."""
    model = _Model()
    return repr(model)


def never_reports(seconds: float) -> str:
    """A rank that calls nothing of the launcher's."""
    time.sleep(seconds)
    return "went well"
