"""What ``worker.step`` and the agent behind it cost a training at a millisecond a step.

Two ranks train a small model in DDP over gloo, under ``launch_agent`` with a place for checkpoints.
In one process after the other, blocks of steps with and without ``worker.step`` take turns, so that
whatever else the machine does meets both. The figure is the median of all blocks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.bench.report.measurement import Measurement, Sample

__all__ = ["measure"]

_BLOCKS, _STEPS, _STEP = 20, 250, 0.001


def _train(blocks: int, steps: int, step_time: float) -> dict[str, list[float]]:
    """Seconds of a step in each block, by whether it called ``worker.step``."""
    import torch
    import torch.distributed as dist

    from llutil.launcher import worker

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    data = torch.ones(8, 32)
    done, found = 0, {"plain": [], "steps": []}
    for block in range(2 * blocks):
        told = block % 2 == 1
        dist.barrier()
        began = time.perf_counter()
        for _ in range(steps):
            end = time.perf_counter() + step_time
            optimizer.zero_grad()
            loss = model(data).mean()
            loss.backward()
            optimizer.step()
            while time.perf_counter() < end:  # a step takes so long at least
                time.sleep(0.0001)
            if told:
                done += 1
                worker.step(done, blocks * steps, loss=0.5)
        found["steps" if told else "plain"].append((time.perf_counter() - began) / steps)
    dist.destroy_process_group()
    return found


def measure() -> Iterator[Measurement]:
    """A step with ``worker.step``, beside one without."""
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(1, 1, 2, start_method="forkserver", checkpoint_path=folder)
        found = launch_agent(config, _train, [_BLOCKS, _STEPS, _STEP])[0]
    yield Measurement(
        name="step",
        what=f"a step of DDP with worker.step(step, total, loss=loss), blocks of {_STEPS} steps",
        unit="s",
        ours=Sample.of(found["steps"]),
        peer=Sample.of(found["plain"]),
        peer_name="the same without it",
    )
