"""What importing the provider costs a DAG file, on top of airflow.sdk.

Each figure comes from fresh interpreters; their bytecode is written once before, as an installation
has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from tests.bench.report.measurement import Goal, Measurement, Sample

__all__ = ["measure"]

_GOAL = 0.05  # seconds
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


def measure() -> Iterator[Measurement]:
    """The import of the provider, beside that of Airflow's SDK."""
    with tempfile.TemporaryDirectory(prefix="airflow-home-") as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "PYTHONPYCACHEPREFIX": f"{home}/pycache"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        sdk, provider = zip(*[_imports(environment) for _ in range(_RUNS + 1)][1:], strict=True)
    yield Measurement(
        name="provider",
        what="import of the operator and the decorator, after airflow.sdk",
        unit="s",
        ours=Sample.of(provider),
        peer=Sample.of(sdk),
        peer_name="import airflow.sdk",
        goal=Goal("ours", _GOAL),
    )


def _imports(environment: dict[str, str]) -> tuple[float, float]:
    """Seconds for airflow.sdk and for the provider."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    first, second = done.stdout.split()[-2:]
    return float(first), float(second)
