"""Has the tasks of an Airflow start warm agents: processes forked from one that has torch imported.

Airflow imports a module of this name at its start. The agents' start itself is tried out by the
Airflow with Celery, which has no such module, by ``dag.test()``, and without an Airflow.

It lies in a folder of Airflow's, as a link. What it needs of the tests it loads by its path: what
is on the ``sys.path`` of Airflow is on that of its tasks' agents, too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

from airflow_provider.agent_client import process

__all__: list[str] = []  # nothing here is a setting

_HELPER = Path(__file__).resolve().parents[1] / "support" / "warm_python.py"


def _have_agents_forked() -> None:
    spec = importlib.util.spec_from_file_location("warm_python", _HELPER)
    assert spec is not None
    assert spec.loader is not None
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    python = helper.WarmPython(Path(os.environ["AIRFLOW_HOME"], "python"), os.environ)
    popen = {"Popen": python.popen, "DEVNULL": subprocess.DEVNULL}
    vars(process)["subprocess"] = SimpleNamespace(**popen)


_have_agents_forked()
