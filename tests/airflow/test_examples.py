"""The three example DAGs in a real Airflow, triggered over the REST API."""

from __future__ import annotations

import pytest

from tests.airflow.client import Run

pytestmark = pytest.mark.airflow


@pytest.mark.parametrize("run", ["train_digits"], indirect=True)
class TestDigits:
    def test_ranks_agree_on_an_accuracy_of_95_percent(self, run: Run) -> None:
        run.finish("success")
        xcoms = run.task("train").xcoms()
        ranks = xcoms["return_value"]
        assert ranks == {"0": xcoms["rank_0"], "1": xcoms["rank_1"]}
        assert [rank["rank"] for rank in ranks.values()] == [0, 1]
        assert {rank["world_size"] for rank in ranks.values()} == {2}
        assert all(rank["samples"] > 0 and rank["loss"] >= 0 for rank in ranks.values())
        (accuracy,) = {rank["accuracy"] for rank in ranks.values()}
        assert accuracy >= 0.95
        assert run.task("compare").xcoms()["return_value"] == accuracy

    def test_log_says_how_far_each_rank_is_and_what_it_prints(self, run: Run) -> None:
        text = run.task("train").text()
        assert "progress: rank 0 30/30 (100 %), rank 1 30/30 (100 %)" in text
        assert "info    [rank 0] held-out accuracy" in text


@pytest.mark.parametrize("run", ["train_script"], indirect=True)
def test_script_knows_nothing_of_airflow_and_gets_its_arguments(run: Run) -> None:
    run.finish("success")
    assert run.task("train").xcoms()["return_value"] == {"0": None, "1": None}
    text = run.task("train").text()
    assert "[rank 0] " in text
    assert "[rank 1] " in text


@pytest.mark.parametrize("run", ["train_closure"], indirect=True)
def test_closure_is_shipped_and_gets_the_run_id(run: Run) -> None:
    run.finish("success")
    ranks = run.task("search").xcoms()["return_value"]
    assert [round(rank["found"], 1) for rank in ranks.values()] == [42.0, 42.0]
    assert {rank["run_id"] for rank in ranks.values()} == {run.run_id}
