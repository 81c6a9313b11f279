"""The example DAGs and the tests' own by ``dag.test()``, as their authors try them out: no server
at all.
"""

from __future__ import annotations

import json
import os

import psutil  # type: ignore[import-untyped]  # psutil ships no types
import pytest

from tests.airflow.conftest import Trial
from tests.airflow.serverless import Outcome
from tests.support.leftovers import files

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def outcomes(trial: Trial) -> dict[str, Outcome]:
    """What came of each DAG."""
    code = trial.process.wait(timeout=400)
    said = trial.log.read_text()[-8000:]
    assert code == 0, said
    outcomes = {
        dag_id: Outcome(**found) for dag_id, found in json.loads(trial.result.read_text()).items()
    }
    failed = [dag_id for dag_id, outcome in outcomes.items() if outcome.state != "success"]
    assert not failed, f"{failed} failed\n{said}"
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


def test_gang_runs_as_a_whole_and_each_instance_has_its_own_nodes_results(
    outcomes: dict[str, Outcome], trial: Trial
) -> None:
    found = outcomes["train_gang"]
    assert found.states == {"compare": "success", "fit[0]": "success", "fit[1]": "success"}
    nodes = [found.xcoms[f"fit[{node}]"]["return_value"] for node in (0, 1)]
    assert [set(ranks) for ranks in nodes] == [{"0"}, {"1"}]
    assert [ranks[str(rank)]["node"] for rank, ranks in enumerate(nodes)] == [0, 1]
    assert abs(found.xcoms["compare"]["return_value"]["slope"] - 3) < 0.1
    log = trial.log.read_text()
    assert "all 2 nodes of this gang run now, on this machine" in log
    assert "has run already, with all the others" in log


def test_training_that_saves_and_could_resume_runs_to_its_end(
    outcomes: dict[str, Outcome], trial: Trial
) -> None:
    found = outcomes["train_resume"].xcoms["report"]["return_value"]
    assert (found["first_step"], found["last_step"]) == (0, found["of"])
    assert found["accuracy"] >= 0.95
    (job,) = (trial.home / "tmp" / "elastic-checkpoints").glob("train_resume.*")
    saved = {path.parent.name.split("-")[1] for path in job.glob("step-*/COMMITTED")}
    assert saved == {"200", "300", "400"}


@pytest.mark.parametrize(
    ("dag_id", "steps"), [("train_lightning", 92), ("train_transformers", 100)]
)
def test_frameworks_train_and_save_by_their_callbacks(
    dag_id: str, steps: int, outcomes: dict[str, Outcome], trial: Trial
) -> None:
    ranks = outcomes[dag_id].xcoms["train"]["return_value"]
    ends = {(rank["first_step"], rank["last_step"], rank["stopped"]) for rank in ranks.values()}
    assert ends == {(0, steps, False)}
    assert all(rank["accuracy"] > 0.8 for rank in ranks.values())
    (job,) = (trial.home / "tmp" / "elastic-checkpoints").glob(f"{dag_id}.*")
    saved = {path.parent.name.split("-")[1] for path in job.glob("step-*/COMMITTED")}
    assert saved == {str(step) for step in range(50, steps + 1, 50)}


def test_values_go_in_and_out_as_under_a_scheduler(outcomes: dict[str, Outcome]) -> None:
    xcoms = outcomes["values"].xcoms
    assert xcoms["classic"] == {"return_value": {"0": 400}, "rank_0": 400}
    assert xcoms["add"]["rank_1"]["many"] == [2, 4, 6]
    assert "silent" not in xcoms


def test_large_results_are_stored_and_read_as_under_a_scheduler(
    outcomes: dict[str, Outcome], trial: Trial
) -> None:
    xcoms = outcomes["archive"].xcoms
    assert xcoms["read"]["return_value"] == {"0": 2_000_000, "1": 3}
    reference = xcoms["fill[0]"]["rank_0"]
    assert reference["uri"].startswith(f"file://{trial.home}/archive/archive/dag_id=archive/")
    assert "/map_index=0/" in reference["uri"]


def test_the_tutorials_job_goes_on_after_the_kill_from_its_checkpoint(
    outcomes: dict[str, Outcome],
) -> None:
    assert outcomes["script"].states == {"train": "success"}
    told = outcomes["resume"].xcoms["report"]["return_value"]
    assert told["began_after"] == 100
    assert (round(told["slope"], 2), round(told["offset"], 2)) == (3.0, -1.0)


def test_the_tutorials_gang_has_both_nodes(outcomes: dict[str, Outcome], trial: Trial) -> None:
    assert outcomes["gang"].states["report"] == "success"
    said = "{0: {'node': 0, 'mean': 1.0}, 1: {'node': 1, 'mean': 1.0}}"
    assert said in trial.log.read_text()


def test_a_rank_is_debugged_where_dag_test_was_called(
    outcomes: dict[str, Outcome], trial: Trial
) -> None:
    assert outcomes["debugged"].xcoms["train"]["return_value"] == {"0": 40, "1": 101}
    shown = os.read(trial.person, 1 << 16).decode()
    assert "-> made += 1" in shown
    assert "(Pdb rank 1) 40" in shown


def test_nothing_is_left_of_them(outcomes: dict[str, Outcome], trial: Trial) -> None:
    assert outcomes
    home = {"AIRFLOW_HOME": str(trial.home)}.items()
    with_home = [
        process
        for process in psutil.process_iter(["environ"])
        if home <= (process.info["environ"] or {}).items()
    ]
    assert with_home == []
    assert {path for path in files(trial.home / "tmp") if path.is_relative_to(trial.home)} == set()
