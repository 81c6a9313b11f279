"""Where the milliseconds of a warm launch go: ``python -m tests.bench._launch_stages 2`` prints, as
JSON, the median of each stage for so many workers that do nothing, and of the whole.

The product has no clocks for this: the functions at the stages' ends are wrapped here. All stages
are on the clock of the launching process but one, the beginning of a worker's code, which is told
by the last worker to begin. That clock is the same for all processes of a machine.
"""

from __future__ import annotations

import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["measure_stages"]

_RUNS = 25
_PAUSE = 0.1  # seconds between two launches, in which workers are forked ahead

_STAGES = (
    "the request is checked",
    "guardian, event page, socket and agent are made",
    "the round is formed, with its TCPStore",
    "workers have what they start with",
    "the code of the last one begins",
    "all have ended",
    "nothing is left of them",
    "the agent's parts are closed",
)
"""What has happened at the end of each stage."""


def began() -> float:
    """The worker: when its code began. It has torch, as any worker of the benchmarks has."""
    import torch  # noqa: F401 - what is measured

    return time.monotonic()


def measure_stages(nproc: int) -> dict[str, float]:
    """Milliseconds of each stage, and of the whole."""
    runs = _runs(nproc)[1:]  # the first one waits for the import of torch
    spans = [[1000 * (b - a) for a, b in itertools.pairwise(run)] for run in runs]
    found = dict(zip(_STAGES, map(statistics.median, zip(*spans, strict=True)), strict=True))
    whole = [1000 * (run[-1] - run[0]) for run in runs]
    found |= {"the launch": statistics.median(whole), "the fastest launch": min(whole)}
    return {name: round(took, 2) for name, took in found.items()}


def _runs(nproc: int) -> list[list[float]]:
    """The ends of the stages of each launch, after its beginning."""
    from llutil.agent import base_agent, torch_agent
    from llutil.agent.workers import rank_group
    from llutil.launcher import run, warm_workers
    from llutil.launcher.launch_agent import LaunchConfig, launch_agent

    ends: list[float] = []
    _note(run, "check_request", ends)
    _note(run, "build_agent", ends)
    _note(torch_agent.TorchBackendAgent, "_rendezvous", ends)
    _note(base_agent.Agent, "_start_workers", ends)
    _note(rank_group, "kill_all", ends, before=True)
    config = LaunchConfig(1, 1, nproc, start_method="forkserver", monitor_interval=30.0)
    runs = []
    with warm_workers():
        for _ in range(_RUNS):
            ends[:] = [time.monotonic()]
            code = max(launch_agent(config, began, []).values())
            ends.append(time.monotonic())
            ends.insert(5, max(code, ends[4]))
            runs.append(list(ends))
            time.sleep(_PAUSE)
    return runs


def _note(owner: Any, name: str, ends: list[float], *, before: bool = False) -> None:
    """Note when ``owner``'s function ``name`` has returned and, with ``before``, is called."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def noted(*args: Any, **options: Any) -> Any:
        if before:
            ends.append(time.monotonic())
        found = function(*args, **options)
        ends.append(time.monotonic())
        return found

    setattr(owner, name, noted)


if __name__ == "__main__":
    print(json.dumps(measure_stages(int(sys.argv[1])), indent=1))
