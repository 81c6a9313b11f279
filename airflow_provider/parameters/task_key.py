"""Reads from Airflow which task instance runs here; ``llutil.launcher.run_id`` makes ids of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from llutil.launcher.run_id import TaskKey

__all__ = ["deployment", "task_key"]


def deployment() -> str:
    """A short name of the Airflow deployment of this task; every other one on this host has another
    name.
    """
    from airflow.sdk.configuration import conf

    known = [
        conf.get("core", "execution_api_server_url", fallback=""),
        conf.get("api", "base_url", fallback=""),
        os.environ.get("AIRFLOW_HOME", ""),
    ]
    return hashlib.blake2b(repr(known).encode(), digest_size=8).hexdigest()


def task_key(context: Mapping[str, Any]) -> TaskKey:
    """The key of the task instance that ``context`` belongs to."""
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    dag_run = context.get("dag_run")  # missing if a user's own test calls execute
    run_after = dag_run.run_after.isoformat() if dag_run is not None else ""
    return TaskKey(ti.dag_id, ti.task_id, ti.run_id, map_index, run_after)
