"""Gangs in a real Airflow, whose nodes meet in a real etcd by a connection: started, killed,
retried and cleared.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.airflow.client import Client, Run, Task, wait
from tests.airflow.conftest import Meeting, Wanted, await_nothing_left
from tests.airflow.gangs import HEARTBEAT, Gang
from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.etcd]


@pytest.mark.parametrize("run", ["troupe"], indirect=True)
class TestTroupe:
    def test_each_node_has_its_own_ranks_and_all_are_of_one_job(self, run: Run) -> None:
        run.finish("success")
        nodes = [run.task("play", node).xcoms()["return_value"] for node in (0, 1)]
        assert [set(ranks) for ranks in nodes] == [{"0"}, {"1"}]
        values = [value for ranks in nodes for value in ranks.values()]
        assert {value["world_size"] for value in values} == {"2"}
        assert len({value["launch"] for value in values}) == 1

    def test_a_task_downstream_has_all_ranks_in_one_dict(self, run: Run) -> None:
        assert run.task("applaud").xcoms()["return_value"] == ["0", "1"]

    def test_nodes_have_names(self, run: Run) -> None:
        names = [run.task("play", node).facts()["rendered_map_index"] for node in (0, 1)]
        assert names == ["node 0", "node 1"]


@pytest.mark.parametrize("run", ["crowd"], indirect=True)
def test_a_node_for_which_there_was_no_slot_in_time_ends_as_a_success_with_no_ranks(
    run: Run,
) -> None:
    run.finish("success")
    nodes = [run.task("come", node) for node in range(3)]
    results = [node.xcoms()["return_value"] for node in nodes]
    assert run.task("count").xcoms()["return_value"] == 2
    (late,) = (node for node, ranks in zip(nodes, results, strict=True) if not ranks)
    assert "the job succeeded without this node, on node" in late.text()
    assert f"node {late.map_index} ends as a success, with no ranks" in late.text()


@pytest.fixture(scope="module")
def parties(client: Client, meeting: Meeting) -> Iterator[dict[str, Run]]:
    """Runs that go on until a test does something about them, started together.

    Three are gangs that work until they are let go, and two are gangs that have too few slots
    between them.
    """
    assert meeting
    client.await_dags("party", "squeeze")
    wanted = {"squeezed": "squeeze", "squeezed too": "squeeze"}
    wanted |= {"lost and found": "party", "ended": "party", "robbed": "party"}
    runs = {name: client.trigger(dag_id) for name, dag_id in wanted.items()}
    yield runs
    for run in runs.values():
        run.end()


def test_all_nodes_marked_failed_leave_no_process_and_no_member(
    parties: dict[str, Run], server: Airflow, meeting: Meeting
) -> None:
    gang = Gang(parties["ended"]).together()
    other = Gang(parties["lost and found"]).together()
    assert len(gang.keys("members", meeting)) == 2
    for process in server.processes(AIRFLOW_CTX_DAG_RUN_ID=gang.run.run_id):
        said = [*process.cmdline(), *process.environ().values()]
        assert not [text for text in said if meeting.password in text]
    assert all(meeting.password not in str(node.stored()) for node in gang.nodes)
    for node in gang.nodes:
        node.mark("failed")
    await_nothing_left(server, gang.run, seconds=HEARTBEAT + 15)
    gang.run.finish("failed")
    assert gang.keys("members", meeting) == []
    assert len(other.keys("members", meeting)) == 2


def test_a_node_that_is_killed_is_tried_again_and_joins_the_running_job(
    parties: dict[str, Run], server: Airflow
) -> None:
    gang = Gang(parties["lost and found"]).together()
    stays, lost = gang.nodes
    os.kill(lost.facts()["pid"], signal.SIGKILL)
    gang.alone(seconds=60)
    gang.together_again()
    gang.let_go(server)
    gang.run.finish("success", seconds=90)
    assert [stays.facts()["try_number"], lost.facts()["try_number"]] == [1, 2]
    rounds = [stays.stored()["elastic"]["rounds"], lost.stored()["elastic"]["rounds"]]
    # If node 1 has started late, node 0 has begun alone.
    assert [one["end"] for one in rounds[0][-3:]] == ["lost", "membership", "success"]
    assert [len(one["nodes"]) for one in rounds[0][-3:]] == [2, 1, 2]
    # Its first try may have begun alone, or have been killed before it wrote anything.
    assert [one["end"] for one in rounds[1] if one["try"] == 2] == ["success"]
    assert gang.run.task("compare").xcoms()["return_value"].keys() == {"0", "1"}


def test_a_node_whose_task_is_lost_after_the_jobs_success_is_no_success_without_its_values(
    parties: dict[str, Run], server: Airflow
) -> None:
    gang = Gang(parties["robbed"]).together()
    tells, robbed = gang.nodes
    process = psutil.Process(robbed.facts()["pid"])
    process.suspend()  # it pushes nothing
    try:
        gang.let_go(server)
        tells.await_state("success", seconds=60)
    finally:
        process.kill()
    gang.run.finish("failed", seconds=90)
    assert robbed.facts()["try_number"] == 2
    assert "an earlier try had 1 of its ranks, and ended before it could hand on" in robbed.text()
    assert robbed.stored()["elastic"]["failure"]["class"] == "result"


def test_a_gang_that_is_cleared_after_success_runs_again_as_the_next_generation(
    parties: dict[str, Run], server: Airflow, meeting: Meeting
) -> None:
    gang = Gang(parties["lost and found"])
    before = gang.run.task("compare").xcoms()["return_value"]
    launches = gang.launches()
    gang.run_again(server)
    gang.run.task("compare").await_state("success", seconds=150)
    gang.run.finish("success")
    after = gang.run.task("compare").xcoms()["return_value"]
    assert len({*before.values(), *after.values()}) == 4
    assert gang.launches() == launches
    gang.nothing_left(server, meeting)


def test_one_cleared_node_that_cannot_reach_the_others_fails_at_once_and_says_what_to_clear(
    run_of_troupe: Run,
) -> None:
    run = run_of_troupe
    task = run.task("play", 1)
    task.clear()
    task.await_state("failed", seconds=60)
    text = task.text()
    assert "needs 2 of 2 nodes, and only 1 can still come (node 0 is success)" in text
    assert "Clear the whole task" in text
    assert "only 1 can still come" in task.stored()["elastic"]["outcome"]
    assert run.task("play", 0).state() == "success"


def test_gangs_that_cannot_form_give_their_slots_back_and_wait_for_nodes_that_start_slowly(
    client: Client, parties: dict[str, Run], server: Airflow
) -> None:
    runs = [parties["squeezed"], parties["squeezed too"]]
    nodes = [run.task("fit_in", node) for run in runs for node in (0, 1)]

    def hold_of(node: Task) -> Path:
        return server.temporary / f"hold-{node.run.run_id}-{node.map_index}"

    def held() -> Task | None:
        """A node that has given its slot back, and will start slowly."""
        for node in nodes:
            if node.state() == "up_for_reschedule" and "its slot back until" in node.text():
                hold_of(node).touch()
                if node.state() == "up_for_reschedule":
                    return node
                hold_of(node).unlink()  # it has just started
        return None

    slow = wait(
        "a node without a sibling to give its slot back",
        120,
        held,
        lambda: "\n".join(run.tail() for run in runs),
    )
    note = slow.stored()["elastic"]
    assert (note["doing"], note["outcome"]) == ("waits", "waits for its siblings, without a slot")
    sibling = slow.run.task("fit_in", 1 - slow.map_index)
    wider = {"pool": "narrow", "slots": 3, "description": "", "include_deferred": False}
    client.ask("PATCH", "pools/narrow", json=wider)
    sibling.await_text(f"enough nodes have started: node {slow.map_index}.", seconds=150)
    hold_of(slow).unlink()
    for run in runs:
        run.finish("success")
    assert [node.facts()["try_number"] for node in nodes] == [1, 1, 1, 1]
    told = "\n".join(node.text() for node in nodes)
    assert "only 1 of the 2 nodes that the job needs are there; missing: node " in told
    assert "in pool 'narrow')" in told


@pytest.fixture
def run_of_troupe(_wanted: Wanted) -> Run:
    """The run of ``troupe`` that other tests have looked at by now."""
    run = _wanted.finished("troupe")
    return run.finish("success")
