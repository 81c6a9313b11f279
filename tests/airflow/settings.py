"""The settings under which Airflow runs in the tests and in the local commands, as environment
variables.

Only what differs from Airflow's defaults, each with its reason. Nothing of the caller's own Airflow
gets in: ``environment`` drops every variable that would configure it.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["environment"]


def environment(home: Path, bundles: Mapping[str, Path]) -> dict[str, str]:
    """This process's environment for an Airflow that lives in the folder ``home``.

    ``bundles`` maps the name of a DAG bundle to its folder.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        # PYTHONUNBUFFERED would hide it if our agent did not set it by itself.
        if not name.startswith(("AIRFLOW", "_AIRFLOW")) and name != "PYTHONUNBUFFERED"
    }
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    listed = [
        {"name": name, "classpath": local, "kwargs": {"path": str(path)}}
        for name, path in bundles.items()
    ]
    return kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        # Tasks downstream read objects of the classes of DAG files.
        "AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES": "airflow.* unusual_prefix_*",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",  # the default asks the DNS
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(listed),
        "NO_COLOR": "1",
    }
