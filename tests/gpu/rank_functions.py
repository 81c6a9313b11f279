"""What runs in the ranks of ``tests.gpu``. ``device`` is "cuda", or "cpu" in a dry run."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

_TIMEOUT = timedelta(seconds=20)


def add_ranks(backend: str, device: str) -> float:
    """The sum of all ranks' numbers from 1, by a collective on the device."""
    import torch
    import torch.distributed as dist

    dist.init_process_group(backend, timeout=_TIMEOUT)
    total = torch.tensor(float(dist.get_rank() + 1), device=device)
    dist.all_reduce(total)
    value = float(total)
    dist.destroy_process_group()
    return value


def hold(folder: str, device: str) -> dict[str, Any]:
    """Use the device, say so by a file with the process's number, and wait for the file "seen"."""
    import torch

    usable = device == "cpu" or torch.cuda.is_available()
    if usable:
        held = torch.ones(1 << 20, device=device)
        assert float(held.sum()) == float(1 << 20)
    rank = os.environ["RANK"]
    begun = Path(folder, f"begun-{rank}")
    begun.write_text(str(os.getpid()))
    begun.rename(Path(folder, f"ready-{rank}"))
    end = time.monotonic() + 40.0
    while not Path(folder, "seen").exists():
        if time.monotonic() > end:
            raise TimeoutError("nobody has looked at this rank")
        time.sleep(0.02)
    return {"usable": usable, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}


def take_too_much(device: str) -> None:
    """Allocate more than any device has."""
    import torch

    torch.empty(1 << 50, dtype=torch.uint8, device=device)


def train(device: str, steps: int, killed_at: int | None) -> list[float]:
    """The weights after so many steps. In the job's first round the rank kills itself at the step
    ``killed_at``; a checkpoint is saved after every second one.
    """
    import torch

    from llutil.launcher import worker

    torch.manual_seed(7)
    model = torch.nn.Linear(4, 4).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = worker.resume()
    if found:
        state = torch.load(Path(found.path, "state.pt"), map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for step in range(found.step if found else 0, steps):
        if step == killed_at and worker.restart_count() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        batch = torch.full((8, 4), float(step + 1), device=device)
        loss = model(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        worker.step(step + 1, steps)
        if (step + 1) % 2 == 0:
            with worker.checkpoint(step + 1) as folder:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, Path(folder, "state.pt"))
    assert killed_at is None or (found and found.step == killed_at - killed_at % 2), found
    return [float(value) for value in model.weight.detach().cpu().flatten()]
