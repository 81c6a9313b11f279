"""A training that writes down its every step, checkpoint and resume."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

__all__ = ["train"]


def train(folder: str, lockstep: bool, total: int = 10**9, seconds: float = 0.001) -> int:
    """Train for ``total`` steps of so many ``seconds``. In ``lockstep``, ranks add something up in
    each step, as DDP does. What this rank did is in a file of its own. Returns the last step.
    """
    from llutil import worker

    if lockstep:
        from datetime import timedelta

        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    node, rank = os.environ["NODE"], worker.rank()
    path = Path(folder, f"rank-{time.monotonic_ns()}-{node}-{rank}")
    done = worker.resume()
    step = done.step if done else 0
    with path.open("w", buffering=1) as log:

        def say(**what: Any) -> None:
            log.write(json.dumps(what) + "\n")

        say(
            node=node,
            rank=rank,
            world=worker.world_size(),
            round=os.environ["LLUTIL_ROUND"],
            page=os.environ["LLUTIL_EVENTS"],
            resumed=step,
            from_whom=done.path if done else "",
        )
        if done:
            contents = {part.read_text() for part in Path(done.path).glob("part-*")}
            assert contents == {str(step)}, (done, contents)
        while step < total:
            time.sleep(seconds)
            if lockstep:
                dist.all_reduce(torch.ones(1))
            step += 1
            say(step=step)
            todo = worker.step(step, total)
            if todo.checkpoint:
                with worker.checkpoint(step) as place:
                    Path(place, f"part-{rank}").write_text(str(step))
                say(saved=step)
            if todo.stop:
                say(stopped=step)
                break
        say(returned=step)
    if lockstep:
        dist.destroy_process_group()
    return step
