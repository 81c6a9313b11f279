"""Has the tasks of an Airflow start warm agents: processes forked from one that has torch imported.

Airflow imports a module of this name at its start. Some jobs still have agents that start as they
do for users.

It lies in a folder of Airflow's, as a link. What it needs of the tests it loads by its path: what
is on the ``sys.path`` of Airflow is on that of its tasks' agents, too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider.agent_client import process

__all__: list[str] = []  # nothing here is a setting

_HELPER = Path(__file__).resolve().parents[1] / "support" / "warm_python.py"


_FRESH = ("train_digits", "train_gang")
"""The DAGs whose agents are started afresh."""


def _have_agents_forked() -> None:
    spec = importlib.util.spec_from_file_location("warm_python", _HELPER)
    assert spec is not None
    assert spec.loader is not None
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    # Hosts that share AIRFLOW_HOME have such a process each.
    address = os.environ.get("LLUTIL_TEST_WARM_PYTHON", "python")
    python = helper.WarmPython(Path(os.environ["AIRFLOW_HOME"], address), os.environ)

    def popen(argv: list[str], *, env: dict[str, str], **options: Any) -> Any:
        fresh = env.get("AIRFLOW_CTX_DAG_ID") in _FRESH
        return (subprocess.Popen if fresh else python.popen)(argv, env=env, **options)

    vars(process)["subprocess"] = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL)


_have_agents_forked()
