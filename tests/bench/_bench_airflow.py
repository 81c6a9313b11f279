"""The Airflow of the benchmarks: LocalExecutor and PostgreSQL, with the DAGs of ``dags``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.airflow.deployments import local
from tests.airflow.server import Airflow, airflow
from tests.airflow.services import services

__all__ = ["bench_airflow"]

_AT_A_TIME = 4


@contextmanager
def bench_airflow(*dag_ids: str, settings: Mapping[str, str] | None = None) -> Iterator[Airflow]:
    """One for as long as the context lasts, which knows these DAGs and has these ``settings``."""
    with services() as beside:
        home = Path(tempfile.mkdtemp(prefix="airflow-bench-"))
        dags = {"bench": Path(__file__).with_name("dags")}
        deployment = local(_AT_A_TIME, beside.database("bench"))
        deployment = replace(deployment, settings={**deployment.settings, **(settings or {})})
        with airflow(home, dags, remove=True, deployment=deployment) as server:
            server.client.await_dags(*dag_ids)
            yield server
