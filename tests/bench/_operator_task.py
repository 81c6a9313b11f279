"""One process of the launch benchmark: an operator's task in Airflow's own task runner, some times
over.

Prints a JSON list of the seconds that each run took, with Airflow and the DAG imported before.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path


def _main(runs: int) -> None:
    sys.path.append(str(Path(__file__).parents[2]))
    from airflow.sdk import DAG

    from airflow_provider.operators.elastic import ElasticLaunchOperator
    from tests.support.airflow_task import run_task

    with DAG("bench") as dag:
        task = ElasticLaunchOperator(
            task_id="no_op", nproc_per_node=1, entrypoint="tests.bench._launches:no_op"
        )
    dag.fileloc = str(Path(__file__))
    seconds = []
    for number in range(runs):
        began = time.monotonic()
        with contextlib.redirect_stdout(sys.stderr):
            outcome = run_task(task, run_id=f"manual__{number}")
        seconds.append(time.monotonic() - began)
        assert outcome.state == "success", outcome
    print(json.dumps(seconds), flush=True)
    os._exit(0)  # Airflow's own threads have nothing left to do


if __name__ == "__main__":
    _main(int(sys.argv[1]))
