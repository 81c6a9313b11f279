"""The run id of a job whose configuration names none: from the environment, else made up.

``LLUTIL_RUN_ID`` is taken as it is. Airflow's variables of a running task (``AIRFLOW_CTX_*``,
measured with Airflow 3.3.2) identify a try of a task; they do not carry the map index, so mapped
tasks that share a rendezvous store must be given run ids by other means, as the operator does.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from llutil.launcher.job_names import job_name

__all__ = ["RUN_ID", "deduce_run_id"]

RUN_ID = "LLUTIL_RUN_ID"
"""The environment variable that names a run whose configuration does not."""

_AIRFLOW = (
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_TRY_NUMBER",
)


def deduce_run_id(environ: Mapping[str, str]) -> str:
    """A run id for the job started in ``environ``; never empty."""
    given = environ.get(RUN_ID)
    if given:
        return given
    values = [environ.get(name, "") for name in _AIRFLOW]
    if all(values[:3]):
        return job_name(values, values)
    return f"run-{uuid.uuid4().hex}"
