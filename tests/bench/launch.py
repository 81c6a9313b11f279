"""Launching and restarting against stock torch, in one run, on one node with 1, 2 and 4 workers.

Two things are timed: a launch of workers that do nothing, from the call to its return, and a
recovery, from the SIGKILL of rank 0 to the moment when the code of all ranks runs again. All
workers import torch. The launching process has imported everything before the clock runs. "Cold" is
the first launch of a process, "warm" a later one; ours with a fork server are inside
``warm_workers``, which the cold one enters. Ours run at the default interval of 30 s throughout.
The figures depend on the machine, and only the ratios mean anything.

At the end, a task of the operator against a fresh interpreter that makes the bare call: there the
clock runs from the start of the task's code, and of the interpreter. ``python -m tests.bench.launch
1`` chooses the numbers of workers. What a step's report costs is in ``progress``, loss and arrival
of nodes in ``rendezvous``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from tests.bench.report.measurement import Goal, Measurement, Sample
from tests.bench.report.words import progress

__all__ = ["measure"]

_SIZES = (1, 2, 4)
_PROCESSES, _RUNS = 3, 3
_SPAWNED = 2, 2
"""The same of launches by spawn, which take long and of which the first is like the others."""
_DEFAULT, _SHORT = 30.0, 0.1
_DEADLINE = 600.0  # seconds
_HERE = Path(__file__).parent
_ROOT = str(_HERE.parents[1])
_COLD = {nproc: Goal("ratio", ratio) for nproc, ratio in {1: 1.3, 2: 1.3, 4: 2.5}.items()}
_WARM = {2: Goal("ours", 0.015)}

_BARE = """
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
assert launch_agent(LaunchConfig(1, 1, 1{more}), "tests.bench._launches:no_op", []) == {{0: 0}}
"""


class _Bench:
    """Measures each kind once, however many rows want it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.times = cache(self._times)

    def _times(
        self,
        side: str,
        task: str,
        nproc: int,
        method: str,
        interval: float = _DEFAULT,
        preload: bool = False,
    ) -> list[list[float]]:
        """Seconds of each run, by process."""
        if side == "stock" and interval == _DEFAULT:
            # A launch of stock torch takes the interval then, and little else.
            processes, runs = 1, 1
        elif method == "spawn":
            processes, runs = _SPAWNED
        else:
            processes, runs = _PROCESSES, _RUNS
        order = {
            "side": side,
            "task": task,
            "nproc": nproc,
            "method": method,
            "interval": interval,
            "preload": preload,
            "runs": runs,
            "folder": str(self._folder),
        }
        argv = [sys.executable, str(_HERE / "_launches.py"), json.dumps(order)]
        return [_seconds(argv, dict(os.environ)) for _ in range(processes)]

    def cold(self, *kind: Any) -> list[float]:
        """The first runs."""
        return [times[0] for times in self.times(*kind)]

    def warm(self, *kind: Any) -> list[float]:
        """The later runs; all, if there was one only."""
        return [time for times in self.times(*kind) for time in times[1:] or times]

    def all(self, *kind: Any) -> list[float]:
        """Every run."""
        return [time for times in self.times(*kind) for time in times]


def _seconds(argv: Sequence[str], env: dict[str, str]) -> list[float]:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=_DEADLINE, env=env, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{argv} failed:\n{done.stdout}\n{done.stderr}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _row(
    name: str,
    nproc: int,
    what: str,
    stock: Sequence[float],
    ours: Sequence[float],
    peer: str,
    goal: Goal | None = None,
) -> Measurement:
    """One figure of a launch or a recovery with so many workers."""
    return Measurement(
        name=name,
        case=str(nproc),
        what=f"{what}, {nproc} worker{'s' * (nproc > 1)}",
        unit="s",
        ours=Sample.of(ours),
        peer=Sample.of(stock),
        peer_name=peer,
        goal=goal,
    )


def _rows(bench: _Bench, nproc: int) -> Iterator[Measurement]:
    """The figures for so many workers, each as soon as it is there."""
    ours = ("ours", "no-op", nproc, "forkserver")
    default, short = "torch, spawn, interval 30 s", "torch, spawn, interval 0.1 s"
    preloaded = "torch, fork server with torch preloaded"
    slow = bench.all("stock", "no-op", nproc, "spawn")
    cold, warm = bench.cold(*ours), bench.warm(*ours)
    first, later = "first launch of a process", "later launch inside warm_workers()"
    yield _row("first", nproc, first, slow, cold, default, Goal("ratio", 25))
    yield _row("later", nproc, later, slow, warm, default, Goal("ratio", 300))
    quick = bench.all("stock", "no-op", nproc, "spawn", _SHORT)
    yield _row("first-short", nproc, first, quick, cold, short, _COLD.get(nproc))
    yield _row("later-short", nproc, later, quick, warm, short, Goal("ratio", 20))
    server = bench.warm("stock", "no-op", nproc, "forkserver", _SHORT, True)
    yield _row("later-preloaded", nproc, later, server, warm, preloaded, _WARM.get(nproc))
    forked = bench.warm("ours", "no-op", nproc, "fork")
    yield _row("fork", nproc, "launch by a fork of the caller", quick, forked, short)
    spawned = bench.all("ours", "no-op", nproc, "spawn")
    yield _row("spawn", nproc, "launch by spawn on both sides", quick, spawned, short)
    again = bench.all("ours", "recover", nproc, "forkserver")
    killed = "from the SIGKILL of a worker until all run again"
    spawn = bench.all("stock", "recover", nproc, "spawn", _SHORT)
    yield _row("recovery-spawn", nproc, killed, spawn, again, short, Goal("ratio", 60))
    # Without each process' first, which is slower than the others: in torch's favour.
    server = bench.warm("stock", "recover", nproc, "forkserver", _SHORT, True)
    yield _row("recovery-preloaded", nproc, killed, server, again, preloaded, Goal("ratio", 10))


def _operator() -> Iterator[Measurement]:
    """An operator's task, and the bare call in a fresh interpreter, with the start method of each
    side's default.
    """
    with tempfile.TemporaryDirectory(prefix="airflow-home-") as home:
        env = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "PYTHONPATH": _ROOT,
        }
        argv = [sys.executable, "-W", "ignore", str(_HERE / "_operator_task.py"), str(_RUNS + 1)]
        task = _seconds(argv, env)[1:]  # the first one imports what Airflow had not
    for name, more in (("spawn", ""), ("forkserver", ", start_method='forkserver'")):
        yield Measurement(
            name=f"task-{name}",
            what="a task of the operator with one worker in Airflow's task runner",
            unit="s",
            ours=Sample.of(task),
            peer=Sample.of(_bare(_BARE.format(more=more)) for _ in range(_RUNS)),
            peer_name=f"launch_agent in a fresh interpreter, {name}",
            goal=Goal("difference", 0.3),
        )


def _bare(code: str) -> float:
    env = {**os.environ, "PYTHONPATH": _ROOT}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=_DEADLINE, env=env)
    return time.monotonic() - began


def measure(sizes: tuple[int, ...] = _SIZES) -> Iterator[Measurement]:
    """Launches and recoveries with so many workers, and a task."""
    with tempfile.TemporaryDirectory(prefix="launches-") as folder:
        bench = _Bench(Path(folder))
        with ThreadPoolExecutor() as threads:  # they wait for half a minute, side by side
            list(threads.map(lambda nproc: bench.all("stock", "no-op", nproc, "spawn"), sizes))
        for nproc in sizes:
            yield from _rows(bench, nproc)
    yield Measurement(
        name="import",
        what="import torch, torch.distributed in a bare interpreter",
        unit="s",
        ours=Sample.of(_bare("import torch, torch.distributed") for _ in range(_RUNS)),
    )
    yield from _operator()


if __name__ == "__main__":
    for one in measure(tuple(int(word) for word in sys.argv[1:]) or _SIZES):
        print(progress("launch", one), flush=True)
