"""Where the milliseconds of a launch or a recovery go. ``python -m tests.bench._launch_stages warm
2 25`` prints, as JSON, when each stage ended in each of 25 warm launches of two workers that do
nothing: seconds after the beginning, by the name of the stage. The other kinds are ``cold``, the
first launch of a process, and ``recovery``.

The product has no clocks for this: the functions at the stages' ends are wrapped here. All stages
are on the clock of the launching process but those that a worker tells: when it was killed, and
when its code began. That clock is the same for all processes of a machine.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import _launches

__all__ = ["runs_of"]

_PAUSE = 0.3  # seconds between two launches, in which workers are forked ahead

_LAUNCH = {
    "run.check_request": "checked",
    "run.build_agent": "built",
    "TorchBackendAgent._rendezvous": "round",
    "Agent._start_workers": "handed",
    "kill_all before": "ended",
    "kill_all": "nothing-left",
}
_RECOVERY = {
    "kill_all before": "ended",
    "kill_all": "nothing-left",
    "Agent._failure_report": "report",
    "TorchBackendAgent._rendezvous": "round",
    "Agent._start_workers": "handed",
}
"""What has happened when the function returns or, with "before", when it is called."""


def began() -> float:
    """The worker: when its code began. It has torch, as any worker of the benchmarks has."""
    import torch  # noqa: F401 - what is measured

    return time.monotonic()


def runs_of(kind: str, nproc: int, count: int) -> list[dict[str, float]]:
    """The ends of the stages of each launch or recovery of this kind."""
    import cloudpickle
    import torch.distributed.elastic.agent.server.api  # noqa: F401 - before the clock runs

    import llutil.agent.torch_agent  # noqa: F401 - as above
    from llutil.launcher import warm_workers
    from llutil.launcher.launch_agent import LaunchConfig, launch_agent

    marks: list[tuple[str, float]] = []
    _wrap_all(_RECOVERY if kind == "recovery" else _LAUNCH, marks)
    config = LaunchConfig(
        1, 1, nproc, start_method="forkserver", monitor_interval=30.0, max_restarts=1
    )
    if kind == "recovery":
        # As in the benchmark, where it is the main module: a worker does not import it.
        cloudpickle.register_pickle_by_value(_launches)
        return [_recovery(lambda f: launch_agent(config, *f), marks) for _ in range(count)]
    runs = []
    start = time.monotonic()
    with warm_workers():
        for _ in range(count if kind == "cold" else count + 1):
            marks.clear()
            values = launch_agent(config, began, [])
            marks.append(("closed", time.monotonic()))
            runs.append(_after(start, marks, code=max(values.values())))
            time.sleep(_PAUSE)
            start = time.monotonic()
    return runs if kind == "cold" else runs[1:]  # the first one waits for the import of torch


def _recovery(
    launch: Callable[[tuple[Any, list[str]]], dict[int, Any]], marks: list[tuple[str, float]]
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        marks.clear()
        values = launch((_launches.once_killed, [folder]))
        killed = float(Path(folder, "killed").read_text())
    later = [(name, at) for name, at in marks if at >= killed]
    # The second round's end is not looked at.
    first = later[: [name for name, _ in later].index("handed") + 1]
    return _after(killed, first, code=max(values.values()))


def _after(start: float, marks: list[tuple[str, float]], code: float) -> dict[str, float]:
    """The marks in seconds after ``start``, with the beginning of the workers' code, in order. It
    may begin before the launching process knows that it has handed out all.
    """
    ends = [*marks, ("code", max(code, dict(marks)["handed"]))]
    return {name: at - start for name, at in sorted(ends, key=lambda mark: mark[1])}


def _wrap_all(stages: dict[str, str], marks: list[tuple[str, float]]) -> None:
    from llutil.agent import base_agent, torch_agent
    from llutil.agent.workers import rank_group
    from llutil.launcher import run

    owners: dict[str, Any] = {
        "run": run,
        "Agent": base_agent.Agent,
        "TorchBackendAgent": torch_agent.TorchBackendAgent,
        "kill_all": rank_group,
    }
    names: dict[str, dict[bool, str]] = {}
    for where, stage in stages.items():
        function, _, before = where.partition(" ")
        names.setdefault(function, {})[bool(before)] = stage
    for function, told in names.items():
        owner, _, name = function.rpartition(".")
        _wrap(owners[owner or function], name, told, marks)


def _wrap(owner: Any, name: str, told: dict[bool, str], marks: list[tuple[str, float]]) -> None:
    function: Callable[..., Any] = getattr(owner, name)

    def mark(*, before: bool) -> None:
        if before in told:
            marks.append((told[before], time.monotonic()))

    @functools.wraps(function)
    def marked(*args: Any, **options: Any) -> Any:
        mark(before=True)
        found = function(*args, **options)
        mark(before=False)
        return found

    setattr(owner, name, marked)


if __name__ == "__main__":
    kind_, nproc_, count_ = sys.argv[1:]
    print(json.dumps(runs_of(kind_, int(nproc_), int(count_))), flush=True)
    os._exit(0)
