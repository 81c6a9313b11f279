"""Where each millisecond of a launch, a recovery and an operator's task goes.

Stages follow one another, and each is as long as the table says: the whole is their sum, as far as
medians can be summed. A launch is the first of a process that has imported everything ("cold"), or
a later one inside ``warm_workers()``, 0.3 s after the one before. A recovery begins with
the SIGKILL of rank 0. Workers import torch and do nothing. Kinds are measured in turn, so that what
else the machine does meets all alike. A task's stages are those that its own log tells, in a real
Airflow with LocalExecutor and PostgreSQL. At the end, what the kernel itself takes to fork a
process that has torch, and to end it. ``python -m tests.bench.launch_stages 1`` chooses the numbers
of workers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.airflow.client import Client
from tests.bench._bench_airflow import bench_airflow
from tests.bench.report.measurement import Measurement, Sample
from tests.bench.report.words import progress

__all__ = ["STAGES", "measure"]

_SIZES = (1, 2, 4)
_PROCESSES = 3
_COUNTS = {"cold": 1, "warm": 10, "recovery": 2}
"""How many of each kind one process does."""
_TASKS = 6
_FORKS = 200
_DEADLINE = 600.0  # seconds
_HERE = Path(__file__).parent

STAGES = {
    "checked": "the request is checked, and the function pickled",
    "built": "the guardian, the event page, the socket and the agent are there",
    "ended": "all workers have ended",
    "nothing-left": "nothing of them is left among the machine's processes",
    "report": "the failure's report is made",
    "round": "the round is formed, with its TCPStore",
    "handed": "each worker has what it starts with",
    "code": "the user's code of the last worker begins",
    "closed": "the agent's parts are closed, and values are back",
}
"""What has happened at the end of each stage."""
_LOGGED = {
    "launching": (r"launching ", "the operator launches"),
    "agent": (r"\[agent\] this node's event page", "the agent's process has imported torch"),
    "started": (r"\[agent\] round of ", "the workers are started"),
    "over": (r"\[agent\] run '", "all has ended, in the agent's process"),
}
_PEERS = {
    "cold": ("no-op", "spawn", False, "torch, spawn, interval 0.1 s"),
    "warm": ("no-op", "forkserver", True, "torch, fork server with torch preloaded"),
    "recovery": ("recover", "forkserver", True, "torch, fork server with torch preloaded"),
}


def _json_of(argv: list[str], env: Mapping[str, str] | None = None) -> Any:
    """What a Python program prints, in its last line."""
    done = subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
        cwd=_HERE.parents[1],
        env=None if env is None else dict(env),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{argv} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _stock(kind: str, nproc: int, folder: str) -> list[float]:
    """Seconds of a few whole launches or recoveries of stock torch, in one process. The first one,
    if there are more, imports what the others find.
    """
    task, method, preload, _ = _PEERS[kind]
    order = {
        "side": "stock",
        "task": task,
        "nproc": nproc,
        "method": method,
        "interval": 0.1,
        "preload": preload,
        "runs": 1 if kind == "cold" else 3,
        "folder": folder,
    }
    found: list[float] = _json_of([str(_HERE / "_launches.py"), json.dumps(order)])
    return found[1:] or found


def _launches(nproc: int) -> Iterator[Measurement]:
    """The stages of each kind for so many workers, and the whole beside stock torch's."""
    ours: dict[str, list[dict[str, float]]] = {kind: [] for kind in _COUNTS}
    stock: dict[str, list[float]] = {kind: [] for kind in _COUNTS}
    with tempfile.TemporaryDirectory(prefix="launches-") as folder:
        for _ in range(_PROCESSES):
            for kind, count in _COUNTS.items():
                argv = ["-m", "tests.bench._launch_stages", kind, str(nproc), str(count)]
                ours[kind] += _json_of(argv)
                stock[kind] += _stock(kind, nproc, folder)
    for kind, runs in ours.items():
        before: str | None = None
        for stage in runs[0]:
            took = [run[stage] - (run[before] if before else 0.0) for run in runs]
            yield _figure(f"{kind}-{stage}", str(nproc), STAGES[stage], took)
            before = stage
        yield Measurement(
            name=f"{kind}-whole",
            case=str(nproc),
            what="the whole",
            unit="s",
            ours=Sample.of(max(run.values()) for run in runs),
            peer=Sample.of(stock[kind]),
            peer_name=_PEERS[kind][-1],
        )


def _figure(name: str, case: str, what: str, took: list[float]) -> Measurement:
    return Measurement(name=name, case=case, what=what, unit="s", ours=Sample.of(took))


def _task_stages() -> Iterator[Measurement]:
    """The stages of an operator's task with two workers, without the first one."""
    with bench_airflow("nothing_ours_2") as server:
        runs = [_logged_stages(server.client) for _ in range(_TASKS)][1:]
    names = {"launching": "", **{name: what for name, (_, what) in _LOGGED.items()}}
    names["ended"] = "the task has ended"
    for index, (name, what) in enumerate(names.items()):
        yield _figure(f"task-{name}", "2", what, [run[index + 1] - run[index] for run in runs])
    whole = [run[-1] - run[0] for run in runs]
    yield _figure("task-whole", "2", "the whole", whole)


def _logged_stages(client: Client) -> list[float]:
    """When the task began, what its log tells, and when it ended: seconds since 1970."""
    task = client.trigger("nothing_ours_2").finish(seconds=120).task("job")
    facts, records = task.facts(), task.log()
    told = [_told(pattern, records) for pattern, _ in _LOGGED.values()]
    times = [facts["start_date"], *told, facts["end_date"]]
    return [datetime.fromisoformat(at).timestamp() for at in times]


def _told(pattern: str, records: list[dict[str, Any]]) -> str:
    """When the first such line was logged."""
    for record in records:
        if re.match(pattern, record["event"]):
            return str(record["timestamp"])
    raise LookupError(f"no line {pattern!r} in the task's log: {records}")


def _floor() -> Iterator[Measurement]:
    """A fork, and its end, on huge pages, on small ones, and on more huge ones, in turn."""
    from llutil.agent.worker_side.fork_environment import fork_server_environment

    argv = ["-m", "tests.bench._fork_floor", str(_FORKS)]
    small = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    kinds = {
        "heap": (argv, fork_server_environment(small)),
        "small": (argv, small),
        "all": ([*argv, "collapse"], fork_server_environment(small)),
    }
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    for _ in range(2):
        for kind, how in kinds.items():
            for what, took in _json_of(*how).items():
                found[kind].setdefault(what, []).extend(took)
    words = {"heap": "its C heap on huge pages", "all": "Python's objects on huge pages, too"}
    for what, act in (("fork", "to fork a process that has torch"), ("end", "to end that fork")):
        for kind, pages in words.items():
            yield Measurement(
                name=f"floor-{what}",
                case=kind,
                what=f"{act}, {pages}",
                unit="s",
                ours=Sample.of(found[kind][what]),
                peer=Sample.of(found["small"][what]),
                peer_name="all on pages of 4 KiB",
            )
    collapsing = "to put Python's objects on huge pages, once"
    yield _figure("floor-collapse", "", collapsing, found["all"]["collapse"])


def measure(sizes: tuple[int, ...] = _SIZES) -> Iterator[Measurement]:
    """The stages with so many workers, of a task, and what bounds them from below."""
    for nproc in sizes:
        yield from _launches(nproc)
    yield from _floor()
    yield from _task_stages()


if __name__ == "__main__":
    for one in measure(tuple(int(word) for word in sys.argv[1:]) or _SIZES):
        print(progress("launch_stages", one), flush=True)
