"""Gangs in a real Airflow that meet at a store which their first node hosts: no service but Airflow
is there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider.gang.ledger_notice import NOTICE
from tests.airflow.client import Client, Run, Task, wait
from tests.airflow.conftest import await_nothing_left
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
def gang(client: Client, server: Airflow) -> Iterator[Run]:
    """A run whose gang goes on until the last test lets it go. Each test takes it as the one before
    left it.
    """
    client.await_dags("alone")
    run = client.trigger("alone")
    for node in (0, 1):
        run.task("meet", node).await_text(_BOTH, seconds=150)
    yield run
    if run.state() not in {"success", "failed"}:  # the last test was not selected, or has failed
        client.ask("PATCH", run.path, json={"state": "failed"})
    _flag(run, server).unlink(missing_ok=True)


def _flag(run: Run, server: Airflow) -> Path:
    """What ``flag`` of the DAG file waits for."""
    return server.temporary / f"go-{run.run_id.replace(':', '-')}"


def _rounds(task: Task) -> int:
    """How many rounds of both nodes the last try of ``task`` has seen, without what its last one
    left to tell.
    """
    lines = task.text().splitlines()
    return sum(_BOTH in line and "[previous try]" not in line for line in lines)


def _await_rounds(task: Task, count: int) -> None:
    wait(
        f"{count} rounds of both nodes",
        150,
        lambda: True if _rounds(task) == count else None,
        task.run.tail,
    )


def test_when_the_first_node_is_killed_the_other_goes_on_with_its_next_try(gang: Run) -> None:
    host, guest = gang.task("meet", 0), gang.task("meet", 1)
    before = host.xcoms()[NOTICE]
    os.kill(host.facts()["pid"], signal.SIGKILL)
    guest.await_text("node 0, which hosts the job's store at", seconds=60)
    _await_rounds(guest, 2)
    _await_rounds(host, 1)
    assert [host.facts()["try_number"], guest.facts()["try_number"]] == [2, 1]
    after = host.xcoms()[NOTICE]
    assert after["try_number"] == 2
    for name in ("ti_id", "endpoint", "secret"):
        assert before[name] != after[name]


def test_another_node_that_is_cleared_joins_the_first_one_again(gang: Run) -> None:
    host, guest = gang.task("meet", 0), gang.task("meet", 1)
    tried = [host.facts()["try_number"], guest.facts()["try_number"]]
    rounds = _rounds(host)
    guest.clear()
    _await_rounds(host, rounds + 1)
    _await_rounds(guest, 1)
    assert [host.facts()["try_number"], guest.facts()["try_number"]] == [tried[0], tried[1] + 1]


def test_a_gang_that_is_cleared_after_success_meets_again_at_a_new_address(
    gang: Run, server: Airflow
) -> None:
    _flag(gang, server).touch()
    gang.finish("success")
    before = gang.task("compare").xcoms()["return_value"]
    assert before.keys() == {"0", "1"}
    doors = [gang.task("meet", 0).xcoms()[NOTICE]["endpoint"]]
    gang.clear("meet")
    gang.task("compare").await_state("success", seconds=150)
    gang.finish("success")
    after = gang.task("compare").xcoms()["return_value"]
    doors.append(gang.task("meet", 0).xcoms()[NOTICE]["endpoint"])
    assert len({*before.values(), *after.values()}) == 4
    assert len(set(doors)) == 2
    await_nothing_left(server, gang, seconds=20)
