"""Gangs in a real Airflow without a connection, whose node 0 serves the ledger: no service but
Airflow is there.
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
from tests.airflow.gangs import ALONE, BOTH
from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]  # etcd: pools are made beside it


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
        run.task("meet", node).await_text(BOTH, seconds=150)
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
    return sum(BOTH in line and "[previous try]" not in line for line in lines)


def _await_rounds(task: Task, count: int) -> None:
    wait(
        f"at least {count} rounds of both nodes",
        150,
        lambda: True if _rounds(task) >= count else None,
        task.run.tail,
    )


def test_when_another_node_is_killed_node_0_goes_on_and_lets_its_next_try_in(gang: Run) -> None:
    serving, sibling = gang.task("meet", 0), gang.task("meet", 1)
    os.kill(sibling.facts()["pid"], signal.SIGKILL)
    serving.await_text(ALONE, seconds=60)
    _await_rounds(serving, 2)
    _await_rounds(sibling, 1)
    assert [serving.facts()["try_number"], sibling.facts()["try_number"]] == [1, 2]


def test_when_node_0_is_killed_the_other_goes_on_with_its_next_try(gang: Run) -> None:
    serving, sibling = gang.task("meet", 0), gang.task("meet", 1)
    before = serving.xcoms()[NOTICE]
    rounds = _rounds(sibling)
    os.kill(serving.facts()["pid"], signal.SIGKILL)
    sibling.await_text(f"the ledger served at {before['endpoint']} has gone", seconds=60)
    _await_rounds(sibling, rounds + 1)
    _await_rounds(serving, 1)
    assert [serving.facts()["try_number"], sibling.facts()["try_number"]] == [2, 2]
    after = serving.xcoms()[NOTICE]
    assert after["try_number"] == 2
    for name in ("ti_id", "endpoint", "secret"):
        assert before[name] != after[name]


def test_a_gang_that_is_cleared_after_success_has_a_new_ledger_at_a_new_address(
    gang: Run, server: Airflow
) -> None:
    _flag(gang, server).touch()
    gang.finish("success")
    before = gang.task("compare").xcoms()["return_value"]
    assert before.keys() == {"0", "1"}
    places = [gang.task("meet", 0).xcoms()[NOTICE]["endpoint"]]
    gang.clear("meet")
    gang.task("compare").await_state("success", seconds=150)
    gang.finish("success")
    after = gang.task("compare").xcoms()["return_value"]
    places.append(gang.task("meet", 0).xcoms()[NOTICE]["endpoint"])
    assert len({*before.values(), *after.values()}) == 4
    assert len(set(places)) == 2
    await_nothing_left(server, gang, seconds=20)
