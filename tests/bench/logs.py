"""What output costs: a task's log with 100,000 lines of a rank, beside those of a plain Airflow
task; and a training whose rank 0 prints 100,000 lines a second, beside the same without output.

Each runs under Airflow's own supervisor, which writes the log. The training's blocks take turns,
and printing into nothing stands between: the process that prints takes its share of the machine,
wherever its lines go. The figures are medians.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]

_RUNS = 3


def _run(task_id: str) -> dict[str, Any]:
    script = Path(__file__).with_name("_logged_task.py")
    done = subprocess.run(
        [sys.executable, str(script), task_id], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the table."""
    print("100,000 lines, from the first in the task's log to the last")
    for task_id, name in (("plain", "a plain task"), ("job", "a job of one rank")):
        runs = [_run(task_id) for _ in range(_RUNS)]
        assert {run["lines"] for run in runs} == {100_000}
        print(f"  {name:<58} {statistics.median(run['seconds'] for run in runs):>10.2f} s")
    training = _run("training")
    blocks = training["returned"]["0"]
    quiet = statistics.median(blocks["quiet"])
    print(
        f"a training with 2 ranks, {quiet * 1e3:.2f} ms a step; slower, in the median of blocks, by"
    )
    for kind, name in (("nothing", "printing into nothing"), ("log", "printing into the log")):
        loss = statistics.median(
            loud / silent - 1 for loud, silent in zip(blocks[kind], blocks["quiet"], strict=True)
        )
        print(f"  {name:<58} {loss:>10.2%}")
    print(f"  {'lines of it in the log':<58} {training['lines']:>10,}")


if __name__ == "__main__":
    main()
