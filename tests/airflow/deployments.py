"""The ways to deploy Airflow that tests know: which executor runs its tasks, and which database
keeps its state.

This module may import nothing but the standard library and its neighbours here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.airflow.services import Services

__all__ = ["Deployment", "celery", "celery_worker", "local"]

_FIXED = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600"}
"""The tests' DAG files do not change: to read them again all the time, as Airflow does, would take
half a core.
"""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Settings beyond those of any Airflow here, and components beyond its three, as arguments of
    ``airflow``. ``commands`` are further ones, as whole command lines.
    """

    settings: Mapping[str, str]
    components: Mapping[str, list[str]] = field(default_factory=dict)
    commands: Mapping[str, list[str]] = field(default_factory=dict)


def local(at_a_time: int, services: Services | None = None) -> Deployment:
    """LocalExecutor with so many processes, which are forked at the start; SQLite, or
    PostgreSQL.
    """
    settings = {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(at_a_time),
    }
    return Deployment(settings | _FIXED | _database(services))


def celery(workers: int, at_a_time: int, services: Services) -> Deployment:
    """CeleryExecutor with so many workers, each of which runs so many tasks at a time; PostgreSQL
    and Redis.
    """
    settings = {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": services.redis,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{_address(services)}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(at_a_time),
        # Else the scheduler has a process a core for this.
        "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
    }
    names = [f"worker-{number}" for number in range(workers)]
    components = {name: celery_worker(name) for name in names}
    return Deployment(settings | _FIXED | _database(services), components)


def celery_worker(name: str) -> list[str]:
    """The arguments of a worker's ``airflow``. The api-server reads the log files itself."""
    return ["celery", "worker", "--skip-serve-logs", "--celery-hostname", name]


def _database(services: Services | None) -> dict[str, str]:
    if services is None:
        return {}
    names = ("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC")
    return {f"AIRFLOW__DATABASE__{name}": _address(services) for name in names}


def _address(services: Services) -> str:
    return f"postgresql+psycopg:{services.postgresql}"
