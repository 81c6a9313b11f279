"""A gang whose large results go to a folder, and a task downstream that reads them."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import dag, task

from airflow_provider.results import gang_results

SIZE = 2_000_000


@dag(schedule=None)
def archive() -> None:
    """The first rank returns more than XCom should hold."""

    @task.elastic(
        gang=2,
        rdzv_conn_id="etcd_tests",
        results_path=f"file://{os.environ.get('AIRFLOW_HOME', '')}/archive/{{{{ dag.dag_id }}}}",
    )
    def fill() -> dict[str, Any]:
        rank = int(os.environ["RANK"])
        return {"rank": rank, "text": "x" * (SIZE if rank == 0 else 3)}

    @task
    def read(ti: Any = None) -> dict[str, int]:
        return {str(rank): len(value["text"]) for rank, value in gang_results("fill", ti).items()}

    fill() >> read()


archive()
