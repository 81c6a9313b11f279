"""A gang's large results in a real Airflow: outside its database, and back in a task downstream;
and its preflight.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from tests.airflow.client import Run

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]

SIZE = 2_000_000


@pytest.mark.parametrize("run", ["archive"], indirect=True)
class TestArchive:
    def test_a_task_downstream_has_the_values_of_all_ranks_wherever_they_are(
        self, run: Run
    ) -> None:
        run.finish("success")
        assert run.task("read").xcoms()["return_value"] == {"0": SIZE, "1": 3}

    def test_what_is_large_is_a_file_and_what_is_small_is_in_xcom(self, run: Run) -> None:
        large, small = (run.task("fill", node).xcoms() for node in (0, 1))
        reference = large["return_value"]["0"]
        assert reference == large["rank_0"]
        assert small["return_value"] == {"1": {"rank": 1, "text": "xxx"}}
        file = Path(reference["uri"].removeprefix("file://"))
        assert file.stat().st_size == reference["size"] > SIZE
        assert f"dag_id=archive/run_id={run.run_id[:10]}" in str(file)
        assert "/task_id=fill/map_index=0/attempt=1_" in str(file)
        assert f"rank 0 returned {reference['size']:,} bytes, stored at " in (
            run.task("fill", 0).text()
        )

    def test_nodes_say_what_airflow_says_of_the_others_and_nothing_of_airflows_own_defaults(
        self, run: Run
    ) -> None:
        for node in (0, 1):
            text = run.task("fill", node).text()
            assert "max_failed_heartbeats" not in text
            assert "2 of 2 nodes are needed, each with a slot of pool 'default_pool'" in text
            assert "could not be checked" not in text

    def test_nodes_have_told_each_other_what_they_run(self, run: Run) -> None:
        told = [run.task("fill", node).xcoms()["gang_versions"] for node in (0, 1)]
        assert {one["torch"] for one in told} == {metadata.version("torch")}
        assert [one["node"] for one in told] == [0, 1]
        assert told[0]["rerun_token"] == told[1]["rerun_token"]
