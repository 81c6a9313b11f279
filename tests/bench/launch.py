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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.bench._tables import change, print_table

__all__ = ["main"]

_SIZES = (1, 2, 4)
_PROCESSES, _RUNS = 3, 3
_DEFAULT, _SHORT = 30.0, 0.1
_DEADLINE = 600.0  # seconds
_HERE = Path(__file__).parent
_ROOT = str(_HERE.parents[1])
_COLD = {1: 1.3, 2: 1.3, 4: 2.5}

_TITLES = (
    "launch of workers that do nothing, default interval, first of a process",
    "the same, a later one inside `warm_workers()`",
    "`monitor_interval=0.1`, first",
    "`monitor_interval=0.1`, later",
    "from the SIGKILL of a worker until all run again; stock by spawn",
    "the same; stock by its own fork server with torch preloaded",
)
"""The rows of the README's table."""

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
        # At this interval a launch of stock torch takes the interval, and little else.
        processes, runs = (
            (1, 1) if side == "stock" and interval == _DEFAULT else (_PROCESSES, _RUNS)
        )
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


def _text(times: Sequence[float]) -> str:
    return f"{statistics.median(times):8.3f} ({min(times):.3f}-{max(times):.3f})"


def _row(name: str, stock: Sequence[float], ours: Sequence[float], goal: float = 0) -> str:
    """Print it; what the README's table has."""
    ratio = statistics.median(stock) / statistics.median(ours)
    wanted = f"{goal:>9g}x {'met' if ratio >= goal else 'MISSED'}" if goal else ""
    print(f"  {name:<46}{_text(stock):>26}{_text(ours):>24}{ratio:>9.1f}x{wanted}", flush=True)
    return change(statistics.median(stock), statistics.median(ours))


def _rows(bench: _Bench, nproc: int) -> list[str]:
    """Print the rows for so many workers; the figures of the README's column."""
    short = bench.all("stock", "no-op", nproc, "spawn", _SHORT)
    default = bench.all("stock", "no-op", nproc, "spawn")
    preloaded = bench.warm("stock", "no-op", nproc, "forkserver", _SHORT, True)
    ours = ("ours", "no-op", nproc, "forkserver")
    cold, warm = bench.cold(*ours), bench.warm(*ours)
    spawned = bench.all("ours", "no-op", nproc, "spawn")
    forked = bench.warm("ours", "no-op", nproc, "fork")
    print(f"{nproc} worker{'s' * (nproc > 1)}")
    figures = [
        _row("no-op at 30 s; forkserver, cold", default, cold, 25),
        _row("no-op at 30 s; forkserver, warm", default, warm, 300),
        _row("no-op at 0.1 s; forkserver, cold", short, cold, _COLD.get(nproc, 0)),
        _row("no-op at 0.1 s; forkserver, warm", short, warm, 20),
    ]
    _row("no-op at 30 s; fork of the caller", default, forked)
    _row("no-op at 0.1 s; fork of the caller", short, forked)
    _row("no-op at 0.1 s; spawn on both sides", short, spawned)
    _row("stock: forkserver, preloaded, warm", preloaded, warm)
    again = bench.all("ours", "recover", nproc, "forkserver")
    spawn = bench.all("stock", "recover", nproc, "spawn", _SHORT)
    # Without each process' first, which is slower than the others: in torch's favour.
    server = bench.warm("stock", "recover", nproc, "forkserver", _SHORT, True)
    return [
        *figures,
        _row("recovery; stock: spawn", spawn, again, 25),
        _row("recovery; stock: forkserver, preloaded", server, again, 2),
    ]


def _operator() -> None:
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
    print(f"a task of the operator, 1 worker{'':>44}{_text(task):>26}")
    for name, more in (("spawn", ""), ("forkserver", ", start_method='forkserver'")):
        bare = [_bare(_BARE.format(more=more)) for _ in range(_RUNS)]
        slower = statistics.median(task) - statistics.median(bare)
        goal = f"at most 0.3 s slower: {'met' if slower <= 0.3 else 'MISSED'}"
        print(f"  {f'bare call, {name}':<74}{_text(bare):>26}   task {slower:+.3f} s; {goal}")


def _bare(code: str) -> float:
    env = {**os.environ, "PYTHONPATH": _ROOT}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=_DEADLINE, env=env)
    return time.monotonic() - began


def main(sizes: tuple[int, ...] = _SIZES) -> None:
    """Print the table."""
    print(f"launches, seconds, median (fastest-slowest); {os.cpu_count()} cores")
    print(f"  {'':<46}{'torch':>26}{'ours':>24}{'ratio':>10}{'goal':>10}")
    with tempfile.TemporaryDirectory(prefix="launches-") as folder:
        bench = _Bench(Path(folder))
        columns = [_rows(bench, nproc) for nproc in sizes]
    imports = [_bare("import torch, torch.distributed") for _ in range(_RUNS)]
    print(f"import torch, torch.distributed{'':>49}{_text(imports):>26}")
    _operator()
    workers = [f"{nproc} worker{'s' * (nproc > 1)}" for nproc in sizes]
    print_table(["seconds, stock torch → ours", *workers], zip(_TITLES, *columns, strict=True))


if __name__ == "__main__":
    main(tuple(int(word) for word in sys.argv[1:]) or _SIZES)
