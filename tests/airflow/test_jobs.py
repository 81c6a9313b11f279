"""Jobs as tasks of a real Airflow: what goes in, what comes out, and what Airflow does with
tasks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.airflow.client import Run
from tests.airflow.conftest import await_nothing_left
from tests.airflow.server import Airflow

pytestmark = pytest.mark.airflow

_DAGS = Path(__file__).parent / "dags"


@pytest.mark.parametrize("run", ["values"], indirect=True)
class TestValues:
    def test_run_succeeds(self, run: Run) -> None:
        run.finish("success")

    def test_arguments_come_from_a_task_and_from_a_mapped_task(self, run: Run) -> None:
        value = run.task("add").xcoms()["return_value"]["0"]
        assert value["first"] == 20
        assert value["many"] == [2, 4, 6]

    def test_function_gets_the_context_parameters_that_it_names(self, run: Run) -> None:
        value = run.task("add").xcoms()["return_value"]["0"]
        assert value["run_id"] == run.run_id
        assert value["size"] == 3

    def test_worker_imports_a_module_beside_the_dag_file_which_imports_airflow(
        self, run: Run
    ) -> None:
        value = run.task("add").xcoms()["return_value"]["0"]
        assert value["year"] >= 2026
        assert value["folder"] == str(_DAGS)

    def test_every_rank_has_its_value_under_its_own_key_too(self, run: Run) -> None:
        xcoms = run.task("add").xcoms()
        assert xcoms.keys() == {"return_value", "rank_0", "rank_1"}
        assert xcoms["return_value"] == {"0": xcoms["rank_0"], "1": xcoms["rank_1"]}
        assert [xcoms[f"rank_{rank}"]["rank"] for rank in (0, 1)] == ["0", "1"]

    def test_function_named_by_a_string_is_found_beside_the_dag_file(self, run: Run) -> None:
        assert run.task("classic").xcoms() == {"return_value": {"0": 400}, "rank_0": 400}

    def test_without_do_xcom_push_nothing_is_pushed(self, run: Run) -> None:
        assert run.task("silent").xcoms() == {}

    def test_override_changes_one_use_of_a_task_only(self, run: Run) -> None:
        assert [
            {value["world_size"] for value in run.task(task_id).xcoms()["return_value"].values()}
            for task_id in ("who", "who_of_two")
        ] == [{"1"}, {"2"}]

    def test_every_task_has_a_rendezvous_id_of_its_own(self, run: Run) -> None:
        launches = [
            {value["launch"] for value in run.task(task_id).xcoms()["return_value"].values()}
            for task_id in ("add", "who", "who_of_two")
        ]
        assert [len(ids) for ids in launches] == [1, 1, 1]
        assert len(set.union(*launches)) == 3


@pytest.mark.parametrize("run", ["returned"], indirect=True)
class TestReturned:
    def test_what_a_rank_returned_arrives_as_what_it_was(self, run: Run) -> None:
        run.finish("success")
        assert run.task("compare").xcoms()["return_value"]["other"] == []

    def test_an_object_that_a_rank_pickled_can_be_loaded_by_a_task_of_the_dag_file(
        self, run: Run
    ) -> None:
        assert run.task("compare").xcoms()["return_value"]["saved"] is True

    def test_a_returned_dict_is_not_taken_for_a_reference_to_a_file(self, run: Run) -> None:
        assert run.task("compare").xcoms()["return_value"]["rank 1"] == "file:///etc/passwd"


@pytest.mark.parametrize("run", ["sweep"], indirect=True)
class TestSweep:
    def test_jobs_ran_at_the_same_time(self, run: Run) -> None:
        run.finish("success")  # each of the three waited for the two others

    def test_each_job_has_its_own_argument_result_and_rendezvous_id(self, run: Run) -> None:
        values = [run.task("trial", index).xcoms()["return_value"] for index in range(3)]
        assert [set(value) for value in values] == [{"0"}] * 3
        assert [value["0"]["rate"] for value in values] == [0.1, 0.2, 0.3]
        assert [value["0"]["world_size"] for value in values] == ["1"] * 3
        assert len({value["0"]["launch"] for value in values}) == 3

    def test_each_log_has_the_lines_of_its_own_job_only(self, run: Run) -> None:
        rates = (0.1, 0.2, 0.3)
        assert [
            [rate for rate in rates if f"trying {rate}" in run.task("trial", index).text()]
            for index in range(3)
        ] == [[0.1], [0.2], [0.3]]

    def test_mapped_operator_gets_one_argument_list_a_job(self, run: Run) -> None:
        values = [run.task("square", index).xcoms()["return_value"] for index in range(3)]
        assert values == [{"0": 1}, {"0": 4}, {"0": 9}]


@pytest.mark.parametrize("run", ["second_try"], indirect=True)
class TestRetry:
    def test_job_that_fails_once_succeeds_when_airflow_retries_it(self, run: Run) -> None:
        run.finish("success")
        task = run.task("flaky")
        assert task.facts()["try_number"] == 2
        values = task.xcoms()["return_value"]
        assert {value["try_number"] for value in values.values()} == {"2"}

    def test_log_of_the_failed_try_names_the_rank_and_its_error(self, run: Run) -> None:
        text = run.task("flaky").text(try_number=1)
        assert "not on the first try" in text
        assert "rank 1" in text

    def test_log_of_the_failed_try_ends_with_the_report_and_no_frames_below_it(
        self, run: Run
    ) -> None:
        records = run.task("flaky").log(try_number=1)
        errors = [record for record in records if record.get("level") == "error"]
        (stack,) = errors[-1]["error_detail"]
        assert "not on the first try" in stack["exc_value"]
        assert stack["frames"] == []


@pytest.mark.parametrize("run", ["rerun"], indirect=True)
def test_cleared_task_runs_again_under_a_new_rendezvous_id_with_fresh_xcoms(
    run: Run, server: Airflow
) -> None:
    run.finish("success")
    first = run.task("draw").xcoms()
    run.clear("draw")
    run.task("draw").await_state("success", seconds=120)
    second = run.task("draw").xcoms()
    assert first.keys() == second.keys() == {"return_value", "rank_0", "rank_1"}
    launches = [{xcoms[f"rank_{rank}"]["launch"] for rank in (0, 1)} for xcoms in (first, second)]
    assert [len(ids) for ids in launches] == [1, 1]
    assert launches[0] != launches[1]
    drawn = {xcoms[f"rank_{rank}"]["drawn"] for rank in (0, 1) for xcoms in (first, second)}
    assert len(drawn) == 4
    await_nothing_left(server, run, seconds=20)
