"""What importing the provider costs a DAG file, on top of airflow.sdk. Goal: under 50 ms.

Each figure comes from fresh interpreters; their bytecode is written once before, as an installation
has it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

__all__ = ["main"]

GOAL = 50.0  # milliseconds
_RUNS = 7
_PROGRAM = """
import time
began = time.perf_counter()
import airflow.sdk
between = time.perf_counter()
import airflow_provider.operators.elastic
import airflow_provider.decorators.elastic
print(between - began, time.perf_counter() - between)
"""


def main() -> None:
    """Print the median and the extremes of some runs."""
    with tempfile.TemporaryDirectory(prefix="airflow-home-") as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "PYTHONPYCACHEPREFIX": f"{home}/pycache"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        runs = [_measure(environment) for _ in range(_RUNS + 1)][1:]
    print(f"{'import':<32}{'median':>12}{'fastest':>12}{'slowest':>12}")
    for name, times in zip(
        ("airflow.sdk", "airflow_provider on top of it"), zip(*runs, strict=True), strict=True
    ):
        figures = (statistics.median(times), min(times), max(times))
        print(f"{name:<32}" + "".join(f"{figure:>9.1f} ms" for figure in figures))
    added = statistics.median(times for _, times in runs)
    print(f"goal: under {GOAL:.0f} ms added: {'met' if added < GOAL else 'MISSED'}")


def _measure(environment: dict[str, str]) -> tuple[float, float]:
    """Milliseconds for airflow.sdk and for the provider."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    first, second = done.stdout.split()[-2:]
    return float(first) * 1000, float(second) * 1000
