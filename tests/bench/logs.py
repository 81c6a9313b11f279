"""What output costs: a task's log with 100,000 lines of a rank, beside those of a plain Airflow
task; and a training whose rank 0 prints 100,000 lines a second, beside the same without output.

Each runs under Airflow's own supervisor, which writes the log. The training's blocks take turns,
and printing into nothing stands between: the process that prints takes its share of the machine,
wherever its lines go.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.report.measurement import Measurement, Sample

__all__ = ["measure"]

_RUNS = 3


def _run(task_id: str) -> dict[str, Any]:
    script = Path(__file__).with_name("_logged_task.py")
    done = subprocess.run(
        [sys.executable, str(script), task_id], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure() -> Iterator[Measurement]:
    """Lines of a task's log, and steps of a training that prints."""
    plain, job = ([_run(task_id) for _ in range(_RUNS)] for task_id in ("plain", "job"))
    assert {run["lines"] for run in (*plain, *job)} == {100_000}
    yield Measurement(
        name="lines",
        what="100,000 lines of one rank, from the first in the task's log to the last",
        unit="s",
        ours=Sample.of(run["seconds"] for run in job),
        peer=Sample.of(run["seconds"] for run in plain),
        peer_name="a plain Airflow task",
    )
    blocks = _run("training")["returned"]["0"]
    for name, peer, where in (
        ("steps", "quiet", "the same without output"),
        ("steps-printing", "nothing", "the same, printed into nothing"),
    ):
        yield Measurement(
            name=name,
            what="a step of a training whose rank 0 prints 100,000 lines a second into the log",
            unit="s",
            ours=Sample.of(blocks["log"]),
            peer=Sample.of(blocks[peer]),
            peer_name=where,
        )
