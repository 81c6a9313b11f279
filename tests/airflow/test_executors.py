"""Gangs under other executors and databases than those of all other tests here: LocalExecutor and
PostgreSQL.

Both deployments share one etcd with that one, each in a namespace of its own, and run the same DAGs
under the same run ids at the same time.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.airflow.client import Run, wait
from tests.airflow.conftest import Meeting, await_nothing_left
from tests.airflow.deployments import celery, local
from tests.airflow.gangs import ALONE, Gang
from tests.airflow.server import Airflow, airflow
from tests.airflow.services import Services

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]

_DAGS = {"tests": Path(__file__).parent / "dags"}
_NAMES = ("local", "celery")


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment, and its runs: a gang that stays until it is let go, one that ends, one that has
    too few slots.
    """

    server: Airflow
    party: Gang
    troupe: Run
    squeezed: Run


@contextmanager
def _deployed(name: str, beside: Services) -> Iterator[Airflow]:
    """An Airflow of that name's kind: SQLite, or a database of its own and Redis."""
    home = Path(tempfile.mkdtemp(prefix=f"airflow-{name}-"))
    deployment = local(6) if name == "local" else celery(2, 3, beside.database(name))
    with airflow(home, _DAGS, remove=True, deployment=deployment) as server:
        yield server


@pytest.fixture(scope="module")
def places(meeting: Meeting, beside: Services) -> Iterator[Mapping[str, Place]]:
    """Both deployments, with their runs, started together."""
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        starts = [threads.submit(stack.enter_context, _deployed(name, beside)) for name in _NAMES]
        servers = dict(zip(_NAMES, [start.result() for start in starts], strict=True))
        now = datetime.now(UTC)
        places = {}
        for name, server in servers.items():
            meeting.introduce(server.client, f"tests-{name}")
            server.client.await_dags("party", "troupe", "squeeze")
            runs = {
                dag_id: server.client.trigger(dag_id, run_id="shared", at=now)
                for dag_id in ("party", "troupe", "squeeze")
            }
            places[name] = Place(server, Gang(runs["party"]), runs["troupe"], runs["squeeze"])
        yield places
        for place in places.values():
            for run in (place.party.run, place.troupe, place.squeezed):
                await_nothing_left(place.server, run, seconds=30)


@pytest.fixture(params=_NAMES)
def place(request: pytest.FixtureRequest, places: Mapping[str, Place]) -> Place:
    """Each of the deployments."""
    return places[request.param]


def test_the_same_run_in_two_deployments_is_two_jobs_under_one_id(
    places: Mapping[str, Place], meeting: Meeting
) -> None:
    gangs = {name: place.party.together() for name, place in places.items()}
    assert len({name for gang in gangs.values() for name in gang.launches()}) == 1
    members = gangs["local"].keys("members", meeting)
    places_of = sorted(key.split("/")[1] for key in members)
    assert places_of == ["tests-celery", "tests-celery", "tests-local", "tests-local"]


def test_a_node_that_is_killed_is_tried_again_and_joins_the_running_job(place: Place) -> None:
    gang = place.party.together()
    stays, lost = gang.nodes
    os.kill(lost.facts()["pid"], signal.SIGKILL)
    stays.await_text(ALONE, seconds=60)
    gang.together_again()
    gang.let_go(place.server)
    gang.run.finish("success")
    assert [node.facts()["try_number"] for node in gang.nodes] == [1, 2]
    assert gang.run.task("compare").xcoms()["return_value"].keys() == {"0", "1"}


def test_a_gang_that_is_cleared_after_success_runs_again_with_new_results(
    place: Place, meeting: Meeting
) -> None:
    gang = place.party
    before = {value["drawn"] for value in gang.ranks().values()}
    gang.run.clear("meet")
    gang.run.task("compare").await_state("success", seconds=150)
    gang.run.finish("success")
    after = {value["drawn"] for value in gang.ranks().values()}
    assert len(before | after) == 4
    gang.nothing_left(place.server, meeting)


def test_a_task_downstream_has_all_ranks_of_all_nodes(place: Place) -> None:
    place.troupe.finish("success")
    assert place.troupe.task("applaud").xcoms()["return_value"] == ["0", "1"]
    nodes = [place.troupe.task("play", node).xcoms()["return_value"] for node in (0, 1)]
    assert [set(ranks) for ranks in nodes] == [{"0"}, {"1"}]


def test_a_gang_that_cannot_form_gives_its_slot_back_and_finishes_once_there_are_enough(
    place: Place,
) -> None:
    nodes = [place.squeezed.task("fit_in", node) for node in (0, 1)]
    wait(
        "a node without a sibling to give its slot back",
        120,
        lambda: next((node for node in nodes if "its slot back until" in node.text()), None),
        place.squeezed.tail,
    )
    wider = {"pool": "narrow", "slots": 2, "description": "", "include_deferred": False}
    place.server.client.ask("PATCH", "pools/narrow", json=wider)
    place.squeezed.finish("success")
    assert [node.facts()["try_number"] for node in nodes] == [1, 1]
