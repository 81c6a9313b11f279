"""Gangs that are restarted, ended and run again in the midst of their work, by all the ways that
Airflow has.

All of them are started together and acted upon together; then each test looks at what came of one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.airflow.client import Client
from tests.airflow.conftest import Meeting
from tests.airflow.gangs import ALONE, BOTH, HEARTBEAT, Gang
from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]

_AGAIN = "again"
_DAYS = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC))
_AT_ONCE = 45.0
"""Seconds: a heartbeat, a look at the siblings and an agent's end, on a busy machine."""


@pytest.fixture(scope="module")
def gangs(client: Client, meeting: Meeting, server: Airflow) -> Iterator[dict[str, Gang]]:
    """Gangs at work, of each of which one node has just been cleared or marked, or which has run
    out of time.
    """
    assert meeting
    client.await_dags("party", "pact", "fleeting", "daily")
    wanted = {
        "cleared": "party",
        "failed": "party",
        "succeeded": "party",
        "bound": "pact",
        "overdue": "fleeting",
    }
    gangs = {name: Gang(client.trigger(dag_id)) for name, dag_id in wanted.items()}
    gangs["deleted"] = Gang(client.trigger("party", run_id=_AGAIN))
    for name, gang in gangs.items():
        if name != "overdue":
            gang.together()
    days = client.backfill("daily", *_DAYS, at_a_time=3)
    gangs |= {f"day {number}": Gang(run) for number, run in enumerate(days)}
    gangs["cleared"].nodes[1].clear()
    gangs["failed"].nodes[1].mark("failed")
    gangs["succeeded"].nodes[1].mark("success")
    gangs["bound"].nodes[1].clear()
    yield gangs
    for gang in gangs.values():
        gang.run.end()


@pytest.fixture(scope="module")
def triggered_again(gangs: dict[str, Gang], client: Client) -> tuple[set[str], Gang]:
    """What a gang was launched as whose run was deleted while it worked, and that of the next run
    of the same id.
    """
    before = gangs["deleted"].launches()
    gangs["deleted"].run.mark("failed")
    client.await_scheduler()
    gangs["deleted"].run.delete()
    gangs["deleted"] = Gang(client.trigger("party", run_id=_AGAIN))
    return before, gangs["deleted"]


@pytest.mark.usefixtures("triggered_again")
def test_the_same_dag_at_the_same_time_is_another_job(gangs: dict[str, Gang]) -> None:
    launches = [gangs[name].launches() for name in ("cleared", "failed", "succeeded")]
    assert [len(names) for names in launches] == [1, 1, 1]
    assert len(set.union(*launches)) == 3


def test_a_node_that_is_cleared_while_the_others_run_comes_back_to_them(
    gangs: dict[str, Gang],
) -> None:
    gang = gangs["cleared"]
    stays, cleared = gang.nodes
    gang.alone(seconds=_AT_ONCE)
    gang.together_again()
    assert [stays.facts()["try_number"], cleared.facts()["try_number"]] == [1, 2]


def test_all_nodes_that_are_cleared_while_they_run_begin_again_together(
    gangs: dict[str, Gang], server: Airflow, meeting: Meeting
) -> None:
    gang = gangs["cleared"]
    gang.run.clear("meet")
    for node, number in zip(gang.nodes, (2, 3), strict=True):
        node.await_try(number)
        node.await_text(BOTH, try_number=number)
    gang.let_go(server)
    gang.run.finish("success")
    assert gang.ranks().keys() == {"0", "1"}
    assert {value["try_number"] for value in gang.ranks().values()} == {"2", "3"}
    gang.nothing_left(server, meeting)


def test_the_others_go_on_without_a_node_that_is_marked_failed(
    gangs: dict[str, Gang], server: Airflow, meeting: Meeting
) -> None:
    gang = gangs["failed"]
    gang.alone(seconds=_AT_ONCE)
    gang.let_go(server)
    gang.run.finish("failed")
    assert [node.state() for node in gang.nodes] == ["success", "failed"]
    assert gang.ranks().keys() == {"0"}
    gang.nothing_left(server, meeting)


def test_one_node_of_a_finished_gang_runs_again_alone_if_that_is_enough(
    gangs: dict[str, Gang], server: Airflow, meeting: Meeting
) -> None:
    gang = gangs["failed"]
    before = gang.ranks()
    gang.nodes[1].clear()
    gang.nodes[1].await_state("success", seconds=90)
    assert gang.nodes[1].xcoms()["return_value"]["0"]["drawn"] != before["0"]["drawn"]
    gang.nothing_left(server, meeting)


def test_the_others_go_on_without_a_node_that_is_marked_success_and_end_if_all_are(
    gangs: dict[str, Gang], server: Airflow, meeting: Meeting
) -> None:
    gang = gangs["succeeded"]
    gang.alone(seconds=_AT_ONCE)
    gang.nodes[0].mark("success")
    gang.nothing_left(server, meeting, seconds=HEARTBEAT + 20)
    gang.run.finish("failed")
    assert [node.state() for node in gang.nodes] == ["success", "success"]
    assert "'meet' has left no results of a gang" in gang.run.task("compare").text()


def test_nodes_that_need_each_other_wait_for_one_that_is_cleared(gangs: dict[str, Gang]) -> None:
    gang = gangs["bound"]
    gang.together_again()
    assert ALONE not in gang.nodes[0].text()


def test_a_node_whose_sibling_was_given_up_fails_at_once_and_says_so(
    gangs: dict[str, Gang], server: Airflow, meeting: Meeting
) -> None:
    gang = gangs["bound"]
    gang.nodes[1].mark("failed")
    began = time.monotonic()
    gang.run.finish("failed", seconds=_AT_ONCE)
    assert time.monotonic() - began < _AT_ONCE
    text = gang.nodes[0].text()
    assert "needs 2 of 2 nodes, and only 1 can still come (node 1 is failed)" in text
    assert "Clear the whole task" in text
    gang.nothing_left(server, meeting)


def test_a_gang_whose_dag_run_has_run_out_of_time_is_ended(
    gangs: dict[str, Gang], server: Airflow, meeting: Meeting
) -> None:
    gang = gangs["overdue"]
    gang.run.finish("failed", seconds=90)
    gang.nothing_left(server, meeting, seconds=HEARTBEAT + 20)
    assert [node.state() for node in gang.nodes] == ["skipped", "skipped"]


def test_a_run_that_was_deleted_and_triggered_again_under_its_id_is_another_job(
    triggered_again: tuple[set[str], Gang], server: Airflow, meeting: Meeting
) -> None:
    before, gang = triggered_again
    gang.together()
    gang.let_go(server)
    gang.run.finish("success")
    assert len(before) == 1
    assert len(gang.launches()) == 1
    assert before.isdisjoint(gang.launches())
    assert gang.ranks().keys() == {"0", "1"}
    gang.nothing_left(server, meeting)


def test_three_runs_of_a_backfill_at_a_time_are_three_jobs(
    gangs: dict[str, Gang], server: Airflow, meeting: Meeting
) -> None:
    days = [gang for name, gang in gangs.items() if name.startswith("day ")]
    assert len(days) == 3
    for gang in days:
        gang.run.finish("success")  # all of them waited for each other
    for gang in days:
        assert {value["world_size"] for value in gang.ranks().values()} == {"2"}
        gang.nothing_left(server, meeting)
    assert len(set.union(*(gang.launches() for gang in days))) == 3


def test_what_gangs_leave_in_etcd_is_leased(meeting: Meeting) -> None:
    assert meeting.unleased() == []
