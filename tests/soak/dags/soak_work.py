"""What the ranks of the soak's jobs do: they train, count their samples, and end in their own way.

It imports neither Airflow nor, if its ranks need not wait for each other, torch: most of a short
job's time would be that import.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BATCH = 4
"""Samples of a rank in a step."""
SAVED = "state-{rank}"


def train(samples: str, seconds: str, lockstep: str = "") -> dict[str, int]:
    """Train on each of so many samples once, in steps of so many ``seconds``. In ``lockstep`` ranks
    add something up in each step, as DistributedDataParallel does.
    """
    add = _all_reduce() if lockstep else None
    step, taken = _train(int(samples), float(seconds), add)
    return {"step": step, "taken": taken}


def fail(how: str, samples: str, seconds: str) -> Any:
    """Train for a second; then the last rank of the job comes to its end."""
    from llutil import worker

    _train(int(samples), float(seconds), None)
    if worker.rank() < worker.world_size() - 1:
        time.sleep(1 if how == "result" else 3600)
    return _ENDS[how]()


def _train(samples: int, seconds: float, add: Any) -> tuple[int, int]:
    from llutil import worker
    from llutil.chaos import journal

    # Not in the agent's environment, which would have the ranks of a job under chaos.
    os.environ[journal.JOURNAL] = os.environ["SOAK_JOB"]
    rank, world = worker.rank(), worker.world_size()
    step, taken = _resumed()
    while taken < samples:
        time.sleep(seconds)
        if add is not None:
            add()
        first = taken + rank * BATCH
        mine = range(min(first, samples), min(first + BATCH, samples))
        taken += world * BATCH
        step += 1
        journal.note_samples(mine)
        journal.write(step=step)
        todo = worker.step(step)
        if todo.checkpoint:
            with worker.checkpoint(step) as folder:
                state = Path(folder, SAVED.format(rank=rank))
                state.write_text(json.dumps({"step": step, "taken": taken}))
        if todo.stop:
            break
    return step, taken


def _resumed() -> tuple[int, int]:
    """The step and the samples of the newest checkpoint, about which all its ranks agree."""
    from llutil import worker

    done = worker.resume()
    if done is None:
        return 0, 0
    texts = {
        Path(done.path, SAVED.format(rank=rank)).read_text() for rank in range(done.world_size)
    }
    if len(texts) > 1:
        raise RuntimeError(f"the checkpoint {done} is of several steps: {sorted(texts)}")
    state = json.loads(texts.pop())
    if state["step"] != done.step:
        raise RuntimeError(f"the checkpoint {done} has the state of step {state['step']}")
    return state["step"], state["taken"]


def _all_reduce() -> Any:
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    return lambda: dist.all_reduce(torch.ones(1))


def _raise() -> None:
    raise ValueError("the soak's own error: a batch of nothing")


def _exit() -> None:
    raise SystemExit(17)


def _use_all_memory() -> Sequence[int]:
    return bytearray(1 << 62)


def _hang() -> None:
    time.sleep(3600)


class _Unknown:
    """What XCom cannot hold."""


_ENDS = {
    "exception": _raise,
    "exit": _exit,
    "memory": _use_all_memory,
    "hang": _hang,
    "result": _Unknown,
}
