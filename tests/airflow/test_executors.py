"""Gangs under the Celery executor; all other tests here run under LocalExecutor.

Its deployment shares one etcd with that one, each in a namespace of its own, and runs the same DAG
under the same run id at the same time.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.client import Client, Run, wait
from tests.airflow.conftest import Meeting, await_nothing_left
from tests.airflow.deployments import celery
from tests.airflow.gangs import Gang
from tests.airflow.otlp_collector import Collector, collector
from tests.airflow.server import Airflow, airflow
from tests.airflow.services import Services

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]

_DAGS = Path(__file__).parent / "dags"
_FILES = ("gangs.py", "duties.py", "slow_python.sh")
"""Those that are run here. To read the others would take seconds of both cores."""
_NAMESPACE = "tests-celery"
_RUN_ID = "shared"


@dataclass(frozen=True, slots=True)
class CeleryRuns:
    """A deployment with Celery, and its runs: a gang that stays until it is let go, one that has
    too few slots. ``twin`` is the run of the first one's DAG in the other deployment.
    """

    server: Airflow
    party: Gang
    squeezed: Run
    twin: Gang


@pytest.fixture(scope="module")
def told() -> Iterator[Collector]:
    """What the deployment exports."""
    with collector() as found:
        yield found


@pytest.fixture(scope="module")
def runs(
    client: Client,
    meeting: Meeting,
    beside: Services,
    told: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[CeleryRuns]:
    """The deployment with its runs, started together."""
    dags = tmp_path_factory.mktemp("dags")
    for name in _FILES:
        shutil.copy(_DAGS / name, dags)
    home = Path(tempfile.mkdtemp(prefix="airflow-celery-"))
    deployment = celery(2, 3, beside.database("celery", like="new"))
    deployment = replace(deployment, settings={**deployment.settings, **told.settings})
    how = {"remove": True, "deployment": deployment, "migrated": True, "warm_agents": True}
    with airflow(home, {"tests": dags}, **how) as server:
        meeting.introduce(server.client, _NAMESPACE)
        server.client.await_dags("party", "squeeze")
        client.await_dags("party")
        now = datetime.now(UTC)
        started = {
            dag_id: server.client.trigger(dag_id, run_id=_RUN_ID, at=now)
            for dag_id in ("party", "squeeze")
        }
        twin = Gang(client.trigger("party", run_id=_RUN_ID, at=now))
        yield CeleryRuns(server, Gang(started["party"]), started["squeeze"], twin)
        twin.run.end()
        for run in started.values():
            await_nothing_left(server, run, seconds=30)


def test_the_same_run_in_two_deployments_is_two_jobs_under_one_id(
    runs: CeleryRuns, meeting: Meeting
) -> None:
    gangs = [runs.party.together(), runs.twin.together()]
    assert len({name for gang in gangs for name in gang.launches()}) == 1
    members = runs.party.keys("members", meeting)
    namespaces = sorted(key.split("/")[1] for key in members)
    assert namespaces == ["tests", "tests", _NAMESPACE, _NAMESPACE]
    runs.twin.run.end()


def test_a_node_that_is_killed_is_tried_again_and_joins_the_running_job(runs: CeleryRuns) -> None:
    gang = runs.party.together()
    lost = gang.nodes[1]
    os.kill(lost.facts()["pid"], signal.SIGKILL)
    gang.alone(seconds=60)
    gang.together_again()
    gang.let_go(runs.server)
    gang.run.finish("success")
    assert [node.facts()["try_number"] for node in gang.nodes] == [1, 2]
    assert gang.run.task("compare").xcoms()["return_value"].keys() == {"0", "1"}


def test_metrics_and_spans_of_a_job_go_where_airflows_own_go(
    runs: CeleryRuns, told: Collector
) -> None:
    """Of the gang whose node 1 was killed, and joined again."""
    stays = runs.party.nodes[0]

    def counted(name: str, **tags: str) -> bool:
        wanted = {"dag_id": "party", "task_id": "meet", **tags}.items()
        return any(
            metric == f"airflow.elastic_launch.{name}" and wanted <= found.items()
            for metric, found in told.metrics
        )

    assert counted("launches")
    assert counted("rendezvous.duration")
    assert counted("restarts", **{"class": "lost_node"})

    def own() -> Any | None:
        """The span of node 0's task. It ends last, so what is below it has come too."""
        return next((span for span in told.spans if span.name == "worker.meet[0]"), None)

    def below(parents: list[Any], name: str) -> list[Any]:
        ids = {parent.span_id for parent in parents}
        return [one for one in told.spans if one.name == name and one.parent_span_id in ids]

    launches = below([wait("its span", 60, own, stays.tail)], "elastic_launch.launch")
    assert below(launches, "elastic_launch.rendezvous")
    rounds = below(launches, "elastic_launch.round")
    ends = [
        one.value.string_value
        for span in rounds
        for one in span.attributes
        if one.key == "elastic_launch.end"
    ]
    assert "lost" in ends
    assert "success" in ends


def test_a_gang_that_is_cleared_after_success_runs_again_with_new_results(
    runs: CeleryRuns, meeting: Meeting
) -> None:
    gang = runs.party
    before = {value["drawn"] for value in gang.ranks().values()}
    gang.run_again(runs.server)
    gang.run.task("compare").await_state("success", seconds=150)
    gang.run.finish("success")
    after = {value["drawn"] for value in gang.ranks().values()}
    assert len(before | after) == 4
    gang.nothing_left(runs.server, meeting)


def test_a_gang_that_cannot_form_gives_its_slot_back_and_finishes_once_there_are_enough(
    runs: CeleryRuns,
) -> None:
    nodes = [runs.squeezed.task("fit_in", node) for node in (0, 1)]
    wait(
        "a node without a sibling to give its slot back",
        120,
        lambda: next((node for node in nodes if "its slot back until" in node.text()), None),
        runs.squeezed.tail,
    )
    wider = {"pool": "narrow", "slots": 2, "description": "", "include_deferred": False}
    runs.server.client.ask("PATCH", "pools/narrow", json=wider)
    runs.squeezed.finish("success")
    assert [node.facts()["try_number"] for node in nodes] == [1, 1]
