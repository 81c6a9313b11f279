"""``training.py FOLDER plain|elastic``: steps in lockstep, with a checkpoint every 250 steps, until
the file ``stop`` is in the folder.

``plain`` saves with torch.save and resumes from its newest file, as a script for torchrun does;
``elastic`` asks ``llutil`` when to save and what to resume from. Each rank writes down its pid, the
step that it resumed from, and when it has made each step.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

_EVERY, _STEP = 250, 0.01
_STATE = {"weights": torch.ones(250_000)}


class Plain:
    """With torch alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "saved"
        self._folder.mkdir(exist_ok=True)
        steps = [int(path.stem) for path in self._folder.glob("*.pt")]
        self.resumed = max(steps, default=0)
        if steps:
            torch.load(self._folder / f"{self.resumed}.pt")

    def after(self, step: int) -> None:
        """Save after that step, if it is time."""
        if step % _EVERY == 0 and dist.get_rank() == 0:
            part = self._folder / "part"
            torch.save(_STATE, part)
            part.rename(self._folder / f"{step}.pt")


class Elastic:
    """With ``worker``."""

    def __init__(self, folder: Path) -> None:
        from llutil import worker

        self._worker = worker
        done = worker.resume()
        self.resumed = done.step if done else 0
        if done:
            torch.load(Path(done.path, "state.pt"))

    def after(self, step: int) -> None:
        """Do what is asked for after that step."""
        todo = self._worker.step(step)
        if todo.checkpoint:
            with self._worker.checkpoint(step) as place:
                if dist.get_rank() == 0:
                    torch.save(_STATE, Path(place, "state.pt"))
        if todo.stop:
            sys.exit()


def main(folder: Path, kind: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    training = Elastic(folder) if kind == "elastic" else Plain(folder)
    began = torch.tensor([time.monotonic_ns()])
    dist.broadcast(began, 0)
    path = folder / f"life-{began.item()}-{dist.get_rank()}"
    stop = torch.zeros(1)
    step = training.resumed
    with path.open("w", buffering=1) as log:
        log.write(f"{os.getpid()} {step}\n")
        while not stop:
            time.sleep(_STEP)
            stop[0] = (folder / "stop").exists()
            dist.all_reduce(stop)
            step += 1
            log.write(f"{step} {time.monotonic()}\n")
            training.after(step)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
