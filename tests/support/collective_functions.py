"""What workers do in the tests of rendezvous: torch.distributed over gloo."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

__all__ = [
    "all_reduce",
    "all_reduce_once_there_are",
    "fail_once_and_all_reduce",
    "meet_over_tcp",
    "train",
]


def all_reduce() -> tuple[int, int, float]:
    """Rank, world size, and the sum of all ranks' numbers, each rank's being 10 to the power of its
    rank.
    """
    dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    try:
        number = torch.tensor(10.0 ** dist.get_rank())
        dist.all_reduce(number)
        return dist.get_rank(), dist.get_world_size(), number.item()
    finally:
        dist.destroy_process_group()


def meet_over_tcp() -> tuple[bool, int]:
    """Whether torch knows that a launcher started this, and how many met at an address given by
    hand.
    """
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=30),
    )
    try:
        dist.barrier()
        return dist.is_torchelastic_launched(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def fail_once_and_all_reduce(folder: str) -> tuple[int, int, float]:
    """The last rank fails in the first round, in the middle of the work of all."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    path = Path(folder, "failed")
    number = torch.tensor(10.0 ** dist.get_rank())
    if dist.get_rank() == dist.get_world_size() - 1 and not path.exists():
        path.touch()
        raise ValueError("once")
    dist.all_reduce(number)
    return dist.get_rank(), dist.get_world_size(), number.item()


def all_reduce_without_an_agents_store() -> tuple[str, int, int, float]:
    """The same, after what torch's variable says of the store that it meets at."""
    return os.environ["TORCHELASTIC_USE_AGENT_STORE"], *all_reduce()


def all_reduce_once_there_are(nodes: int, folder: str) -> tuple[int, int, float]:
    """Wait, alone, for as long as the round has fewer nodes."""
    Path(folder, f"waiting-{os.environ['GROUP_WORLD_SIZE']}").touch()
    if int(os.environ["GROUP_WORLD_SIZE"]) < nodes:
        time.sleep(60)
    return all_reduce()


def train(steps: int) -> list[float]:
    """A few steps of DistributedDataParallel; the weights, which are the same on all ranks."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    try:
        # In a function of its own: a model that outlives its process group may wait for ever when
        # it is freed (torch 2.13).
        return _train(steps)
    finally:
        dist.destroy_process_group()


def _train(steps: int) -> list[float]:
    from torch.nn import Linear
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(dist.get_rank())
    model = DistributedDataParallel(Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 2)).square().mean().backward()
        optimizer.step()
    return [float(x) for parameter in model.parameters() for x in parameter.detach().flatten()]
