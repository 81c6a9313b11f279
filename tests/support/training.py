"""Trainings that write down their every step, checkpoint and resume."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

__all__ = ["train", "train_on_samples", "train_with_ddp"]

_LINES = 2000
"""How many lines a rank writes into a checkpoint: enough to be killed in the middle of them."""


class _Say(Protocol):
    def __call__(self, **what: Any) -> None: ...


def train(folder: str, lockstep: bool, total: int = 10**9, seconds: float = 0.001) -> int:
    """Train for ``total`` steps of so many ``seconds``. In ``lockstep``, ranks add something up in
    each step. What this rank did is in a file of its own. Returns the last step.
    """
    if not lockstep:
        return _train(folder, total, seconds, _Alone)
    dist = _group()
    step = _train(folder, total, seconds, _Adding)
    dist.destroy_process_group()
    return step


def train_with_ddp(folder: str, total: int = 10**9, seconds: float = 0.001) -> int:
    """The same, with a model of torch's DistributedDataParallel, which is in each checkpoint."""
    dist = _group()
    step = _train(folder, total, seconds, _Learning)
    dist.destroy_process_group()  # after the model, which else might wait for ever (torch 2.13)
    return step


class _Model(Protocol):
    """What is trained, in ``steps``. It begins with so many as it is made with."""

    steps: int

    def step(self) -> None: ...


class _Alone:
    """Nothing: ranks need not wait for each other."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self) -> None:
        self.steps += 1


class _Adding(_Alone):
    """A sum over all ranks."""

    def step(self) -> None:
        import torch
        import torch.distributed as dist

        dist.all_reduce(torch.ones(1))
        super().step()


class _Learning:
    """A bias that each step makes less by one, if all ranks have the same gradient."""

    def __init__(self, steps: int) -> None:
        import torch
        from torch.nn.parallel import DistributedDataParallel

        torch.set_num_threads(1)
        linear = torch.nn.Linear(1, 1)
        with torch.no_grad():
            linear.bias.fill_(-steps)
        self._no_grad = torch.no_grad
        self._batch = torch.ones(1, 1)
        self._model = DistributedDataParallel(linear)

    @property
    def steps(self) -> int:
        return round(-self._model.module.bias.item())

    def step(self) -> None:
        self._model(self._batch).sum().backward()
        with self._no_grad():
            for parameter in self._model.parameters():
                parameter.sub_(parameter.grad)
                parameter.grad = None


def _train(folder: str, total: int, seconds: float, made: Callable[[int], _Model]) -> int:
    from llutil import worker

    with _begun(folder) as (say, first, state):
        model = made(state or 0)
        step = first
        while step < total:
            time.sleep(seconds)
            model.step()
            step += 1
            say(step=step)
            todo = worker.step(step, total)
            if todo.checkpoint:
                if model.steps != step:
                    say(wrong=f"the model of step {step} has made {model.steps} steps")
                _save(say, step, model.steps)
            if todo.stop:
                say(stopped=step)
                break
        say(returned=step)
    return step


def train_on_samples(folder: str, samples: int, batch: int, seconds: float = 0.001) -> int:
    """Train in lockstep, epoch after epoch, until it is told to stop. Each line of a step says
    which samples of which epoch this rank had in it.
    """
    import torch

    from llutil import worker
    from llutil.launcher.data import ElasticSampler

    dist = _group()
    sampler = ElasticSampler(samples, batch)
    with _begun(folder) as (say, first, state):
        step = first
        if state:
            sampler.load_state_dict(state)
        stop = False
        while not stop:
            batches = iter(sampler)
            while not stop:
                mine = next(batches, [])
                time.sleep(seconds)
                taken = torch.tensor([len(mine)])
                dist.all_reduce(taken)
                if not taken:
                    break
                step += 1
                say(step=step, epoch=sampler.epoch, samples=mine)
                sampler.advance()
                todo = worker.step(step)
                if todo.checkpoint:
                    _save(say, step, sampler.state_dict())
                if stop := todo.stop:
                    say(stopped=step)
            else:
                break
            sampler.set_epoch(sampler.epoch + 1)
        say(returned=step)
    dist.destroy_process_group()
    return step


def _group() -> Any:
    from datetime import timedelta

    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    return dist


@contextmanager
def _begun(folder: str) -> Iterator[tuple[_Say, int, Any]]:
    """How to write something down, the step to go on from, and what was saved there."""
    from llutil import worker

    node, rank = os.environ["NODE"], worker.rank()
    path = Path(folder, f"rank-{time.monotonic_ns()}-{node}-{rank}")
    done = worker.resume()
    step = done.step if done else 0
    with path.open("w", buffering=1) as log:

        def say(**what: Any) -> None:
            log.write(json.dumps(what) + "\n")

        state, wrong = _load(done) if done else (None, "")
        say(
            node=node,
            rank=rank,
            world=worker.world_size(),
            round=os.environ["LLUTIL_ROUND"],
            page=os.environ["LLUTIL_EVENTS"],
            pid=os.getpid(),
            resumed=step,
            wrong=wrong,
        )
        yield say, step, state


def _save(say: _Say, step: int, state: Any) -> None:
    """Save, in pieces."""
    from llutil import worker

    line = json.dumps({"step": step, "state": state}) + "\n"
    with worker.checkpoint(step) as place:
        with Path(place, f"part-{worker.rank()}").open("w") as part:
            part.writelines(line for _ in range(_LINES))
        say(wrote=step)  # it may wait in the context until its round ends
    say(saved=step)


def _load(done: Any) -> tuple[Any, str]:
    """What was saved in a checkpoint, and what is wrong with that."""
    parts = {path.name: path.read_text().splitlines() for path in Path(done.path).glob("part-*")}
    if parts.keys() != {f"part-{rank}" for rank in range(done.world_size)}:
        return None, f"{done} has the parts {sorted(parts)}"
    said = {line for lines in parts.values() for line in lines}
    if len(said) > 1 or any(len(lines) != _LINES for lines in parts.values()):
        return None, f"{done} is not whole, or not of one step: {sorted(said)[:3]}"
    saved = json.loads(said.pop())
    wrong = "" if saved["step"] == done.step else f"{done} was saved at step {saved['step']}"
    return saved["state"], wrong
