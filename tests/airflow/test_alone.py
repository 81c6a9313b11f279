"""Gangs in a real Airflow that meet at a store which their first node hosts: no service but Airflow is there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider.hosting import NOTICE
from tests.airflow.client import Client, Run, wait
from tests.airflow.conftest import Meeting, await_nothing_left
from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]  # etcd: pools are made beside it

_BOTH = "in a world of 2"


@pytest.mark.parametrize("run", ["sweep_beside_gang"], indirect=True)
class TestSweepBesideGang:
    def test_the_instances_of_a_gang_are_one_job_and_those_of_a_sweep_are_not(
        self, run: Run
    ) -> None:
        run.finish("success")
        gang = [run.task("gang", node).xcoms() for node in (0, 1)]
        assert [set(xcoms["return_value"]) for xcoms in gang] == [{"0"}, {"1"}]
        assert {xcoms[f"rank_{node}"]["world_size"] for node, xcoms in enumerate(gang)} == {"2"}
        sweep = [run.task("sweep", number).xcoms() for number in (0, 1)]
        assert [xcoms["return_value"] for xcoms in sweep] == [{"0": 9}, {"0": 16}]
        assert not any("gang" in xcoms for xcoms in sweep)

    def test_parameters_of_airflow_reach_every_node(self, run: Run) -> None:
        for node in (0, 1):
            facts = run.task("gang", node).facts()
            assert facts["rendered_map_index"] == f"part {node}"
            assert (facts["pool"], facts["queue"]) == ("two_slots", "default")


@pytest.fixture(scope="module")
def runs(client: Client, meeting: Meeting, server: Airflow) -> Iterator[dict[str, Run]]:
    """Two runs that go on until a test does something about them, started together."""
    assert meeting
    client.await_dags("alone")
    runs = {name: client.trigger("alone") for name in ("lasting", "bereft")}
    yield runs
    for run in runs.values():
        if run.state() not in {"success", "failed"}:  # its test was not selected, or has failed
            client.ask("PATCH", run.path, json={"state": "failed"})


def _let_go(run: Run, server: Airflow) -> Path:
    """What ``flag`` of the DAG file waits for."""
    flag = server.temporary / f"go-{run.run_id.replace(':', '-')}"
    flag.touch()
    return flag


def _together(run: Run) -> Run:
    for node in (0, 1):
        run.task("meet", node).await_text(_BOTH, seconds=150)
    return run


def test_the_first_node_is_killed_and_both_go_on_with_its_next_try(
    runs: dict[str, Run], server: Airflow
) -> None:
    run = _together(runs["bereft"])
    host, guest = run.task("meet", 0), run.task("meet", 1)
    before = host.xcoms()[NOTICE]
    os.kill(host.facts()["pid"], signal.SIGKILL)
    guest.await_text("node 0, which hosts the job's store at", seconds=60)
    wait(
        "both to run again",
        150,
        lambda: True if guest.text().count(_BOTH) == 2 and _BOTH in host.text() else None,
        run.tail,
    )
    flag = _let_go(run, server)
    run.finish("success")
    flag.unlink()
    assert [host.facts()["try_number"], guest.facts()["try_number"]] == [2, 1]
    assert run.task("compare").xcoms()["return_value"].keys() == {"0", "1"}
    after = host.xcoms()[NOTICE]
    assert after["try_number"] == 2
    assert before["ti_id"] != after["ti_id"]
    assert before["endpoint"] != after["endpoint"]
    await_nothing_left(server, run, seconds=20)


def test_a_node_that_is_cleared_while_the_others_run_joins_them_again(
    runs: dict[str, Run],
) -> None:
    run = _together(runs["lasting"])
    host, guest = run.task("meet", 0), run.task("meet", 1)
    guest.clear()
    wait(
        "both to run again",
        150,
        lambda: True if host.text().count(_BOTH) == 2 and _BOTH in guest.text() else None,
        run.tail,
    )
    assert [host.facts()["try_number"], guest.facts()["try_number"]] == [1, 2]


def test_a_gang_that_is_cleared_after_success_meets_again_at_a_new_address(
    runs: dict[str, Run], server: Airflow
) -> None:
    run = _together(runs["lasting"])
    flag = _let_go(run, server)
    run.finish("success")
    before = run.task("compare").xcoms()["return_value"]
    assert before.keys() == {"0", "1"}
    doors = [run.task("meet", 0).xcoms()[NOTICE]["endpoint"]]
    run.clear("meet")
    run.task("compare").await_state("success", seconds=150)
    run.finish("success")
    flag.unlink()
    after = run.task("compare").xcoms()["return_value"]
    doors.append(run.task("meet", 0).xcoms()[NOTICE]["endpoint"])
    assert len({*before.values(), *after.values()}) == 4
    assert len(set(doors)) == 2
    await_nothing_left(server, run, seconds=20)
