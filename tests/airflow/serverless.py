"""DAGs run by ``dag.test()``: no server, one process, its own Airflow home.

    python -m tests.airflow.serverless HOME RESULT BUNDLES DAG_ID...

runs DAGs of the files in some folders, one after the other, and writes what came of them as JSON to
the file RESULT. BUNDLES is a JSON object of bundle names and folders. ``prepare`` must have made
the home before. Nothing is taken from the user's own Airflow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.airflow.settings import environment

__all__ = ["Outcome", "prepare", "run"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went: its state, and by task (``task_id`` or ``task_id[map_index]``) state and
    XComs.
    """

    state: str
    states: dict[str, str]
    xcoms: dict[str, dict[str, Any]]


def prepare(home: Path) -> None:
    """Make an Airflow home with a database.

    :raises RuntimeError: the database cannot be made; with what Airflow said.
    """
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("airflow")), "db", "migrate"],
        env=environment(home, {}),
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
    bundles: Mapping[str, Path],
    dag_ids: Sequence[str],
    settings: Mapping[str, str] | None = None,
) -> dict[str, Outcome]:
    """Run DAGs in this process, which must not have imported Airflow yet.

    ``bundles`` are the folders with their files, by name. ``settings`` are further environment
    variables for Airflow.

    :raises RuntimeError: there is no such DAG; with why.
    """
    wanted = environment(home, bundles) | dict(settings or {})
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)

    from airflow.dag_processing.dagbag import BundleDagBag

    dags: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, folder in bundles.items():
        # As the dag-processor and a task read them: not as __main__, and beside their neighbours.
        bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name=name)
        dags |= bag.dags
        problems |= bag.import_errors
    missing = sorted(set(dag_ids) - dags.keys())
    if missing:
        raise RuntimeError(f"no DAG {missing}, only {sorted(dags)}; import errors: {problems}")
    return {dag_id: _outcome(dag_id, dags[dag_id].test()) for dag_id in dag_ids}


def _outcome(dag_id: str, done: Any) -> Outcome:
    return Outcome(
        state=str(done.state),
        states={_name(ti.task_id, ti.map_index): str(ti.state) for ti in done.get_task_instances()},
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
            if entry.key.startswith("_link_"):  # what the UI links to
                continue
            value = XComModel.deserialize_value(entry)
            found.setdefault(_name(entry.task_id, entry.map_index), {})[entry.key] = value
    return found


def _main() -> None:
    home, result, bundles, *dag_ids = sys.argv[1:]
    folders = {name: Path(folder) for name, folder in json.loads(bundles).items()}
    outcomes = run(Path(home), folders, dag_ids)
    found = {dag_id: asdict(outcome) for dag_id, outcome in outcomes.items()}
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    _main()
