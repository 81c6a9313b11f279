"""A rank that takes samples, writes down which ones, and is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from torch.utils.data import DataLoader

from llutil import worker
from llutil.launcher.data import ElasticSampler

__all__ = ["EVERY", "PLACES", "train"]

EVERY = 2  # steps between two checkpoints
PLACES = ("after a batch", "after a step", "in a checkpoint", "after a checkpoint")


def train(length: int, batch_size: int, victim: int, after: int, place: str) -> int:
    """Train an epoch. The rank ``victim`` dies after so many steps of this life; -1: none does.

    Each checkpoint has the samples since the one before it. Returns how many samples are done.
    """
    sampler = ElasticSampler(length, batch_size, seed=11)
    done = worker.resume()
    begin = step = done.step if done else 0
    if done:
        state = json.loads((Path(done.path) / "rank-0").read_text())
        sampler.load_state_dict(state["sampler"])

    def may_die(here: str) -> None:
        if worker.rank() == victim and step >= begin + after and here == place:
            os.kill(os.getpid(), signal.SIGKILL)

    samples: list[int] = []
    for batch in DataLoader(range(length), batch_sampler=sampler):  # type: ignore[arg-type]
        step += 1
        samples += batch.tolist()
        may_die("after a batch")
        sampler.advance()
        worker.step(step, loss=1.0)
        may_die("after a step")
        if step % EVERY and sampler.samples < length:
            continue
        with worker.checkpoint(step) as folder:
            content = {"sampler": sampler.state_dict(), "samples": samples}
            (Path(folder) / f"rank-{worker.rank()}").write_text(json.dumps(content))
            may_die("in a checkpoint")
        samples = []
        may_die("after a checkpoint")
    return sampler.samples
