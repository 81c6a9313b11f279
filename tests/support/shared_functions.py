"""What ranks do with objects that they share with the launching process."""

from __future__ import annotations

import os
from typing import Any


def use_all(queue: Any, event: Any, lock: Any, value: Any, pipe: Any, memory: Any) -> bool:
    """Use one object of each kind, in the second round: a rank that is killed while it uses one
    leaves it locked, as any child of multiprocessing would.
    """
    rank = int(os.environ["RANK"])
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        raise RuntimeError("once")
    with lock, value.get_lock():
        value.value += 10**rank
    queue.put(("from", rank))
    if rank == 1:
        pipe.send({"rank": rank})
        event.set()
    memory.buf[rank] = rank + 7
    return bool(event.wait(20))


def write(tensors: list[Any], module: Any, queue: Any, taken: Any) -> None:
    """Write into tensors and into a module's parameters; send a tensor, and stay until it was
    taken.
    """
    import torch

    for number, tensor in enumerate(tensors):
        tensor.add_(number)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(5)
    queue.put(torch.arange(3))
    taken.wait(20)
