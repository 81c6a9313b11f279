"""The example DAGs and the tests' own by ``dag.test()``, as their authors try them out: no server at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow.serverless import Outcome, prepare

pytestmark = pytest.mark.airflow

_ROOT = Path(__file__).parents[2]
_BUNDLES = {"examples": str(_ROOT / "dags"), "tests": str(Path(__file__).parent / "dags")}
_DAGS = ("train_digits", "train_script", "train_closure", "values")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What came of each DAG."""
    home = tmp_path_factory.mktemp("serverless")
    prepare(home)
    result = home / "result.json"
    words = [str(home), str(result), json.dumps(_BUNDLES), *_DAGS]
    done = subprocess.run(
        [sys.executable, "-m", "tests.airflow.serverless", *words],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    outcomes = {
        dag_id: Outcome(**found) for dag_id, found in json.loads(result.read_text()).items()
    }
    failed = [dag_id for dag_id, outcome in outcomes.items() if outcome.state != "success"]
    assert not failed, f"{failed} failed\n{done.stdout[-8000:]}"
    return outcomes


def test_digits_are_learned_by_two_ranks_that_agree(outcomes: dict[str, Outcome]) -> None:
    ranks = outcomes["train_digits"].xcoms["train"]["return_value"]
    assert ranks.keys() == {"0", "1"}
    assert {rank["accuracy"] for rank in ranks.values()} == {
        outcomes["train_digits"].xcoms["compare"]["return_value"]
    }
    assert all(rank["accuracy"] >= 0.95 for rank in ranks.values())


def test_script_runs_unchanged_and_returns_nothing(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["train_script"].states == {"train": "success"}
    assert outcomes["train_script"].xcoms["train"]["return_value"] == {"0": None, "1": None}


def test_closure_finds_its_target(outcomes: dict[str, Outcome]) -> None:
    ranks = outcomes["train_closure"].xcoms["search"]["return_value"]
    assert [round(rank["found"], 1) for rank in ranks.values()] == [42.0, 42.0]


def test_values_go_in_and_out_as_under_a_scheduler(outcomes: dict[str, Outcome]) -> None:
    xcoms = outcomes["values"].xcoms
    assert xcoms["classic"] == {"return_value": {"0": 400}, "rank_0": 400}
    assert xcoms["add"]["rank_1"]["many"] == [2, 4, 6]
    assert "silent" not in xcoms
