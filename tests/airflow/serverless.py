"""A DAG run by ``dag.test()``: no server, one process, its own Airflow home.

    python -m tests.airflow.serverless HOME FILE DAG_ID RESULT [CONF]

runs a DAG in this process and writes what came out as JSON to the file RESULT. ``prepare`` must have
made the home before; both take Airflow's settings from it, never from the user's own Airflow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.airflow.settings import environment

__all__ = ["Outcome", "prepare", "run"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went: its state, and by task (``task_id`` or ``task_id[map_index]``) state and XComs."""

    state: str
    states: dict[str, str]
    xcoms: dict[str, dict[str, Any]]


def prepare(home: Path, folder: Path) -> None:
    """Make an Airflow home with a database, for the DAGs in ``folder``.

    :raises RuntimeError: the database cannot be made; with what Airflow said.
    """
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("airflow")), "db", "migrate"],
        env=environment(home, {"dags": folder}),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"airflow db migrate failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )


def run(
    home: Path,
    file: Path,
    dag_id: str,
    conf: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a DAG of ``file`` in this process, which must not have imported Airflow yet.

    ``settings`` are further environment variables for Airflow.

    :raises RuntimeError: the file does not define that DAG; with why.
    """
    wanted = environment(home, {"dags": file.parent}) | dict(settings or {})
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)

    from airflow.dag_processing.dagbag import BundleDagBag

    # As the dag-processor and a task read it: not as __main__, and beside its neighbours on sys.path.
    bag = BundleDagBag(dag_folder=file, bundle_path=file.parent, bundle_name="dags")
    if dag_id not in bag.dags:
        raise RuntimeError(f"no DAG {dag_id!r} in {file}: {bag.import_errors or sorted(bag.dags)}")
    done = bag.dags[dag_id].test(run_conf=dict(conf or {}))
    instances = done.get_task_instances()
    return Outcome(
        state=str(done.state),
        states={_name(ti.task_id, ti.map_index): str(ti.state) for ti in instances},
        xcoms=_xcoms(dag_id, done.run_id),
    )


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _xcoms(dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    found: dict[str, dict[str, Any]] = {}
    with create_session() as session:
        for entry in session.scalars(XComModel.get_many(run_id=run_id, dag_ids=dag_id)):
            value = XComModel.deserialize_value(entry)
            found.setdefault(_name(entry.task_id, entry.map_index), {})[entry.key] = value
    return found


def _main() -> int:
    home, file, dag_id, result, *conf = sys.argv[1:]
    outcome = run(Path(home), Path(file), dag_id, json.loads(conf[0]) if conf else None)
    Path(result).write_text(json.dumps(asdict(outcome)))
    return 0 if outcome.state == "success" else 1


if __name__ == "__main__":
    sys.exit(_main())
