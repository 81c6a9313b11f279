"""Jobs in a real Airflow that are steered by the key ``control`` of their tasks' state."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.airflow.client import Client, Run, Task, wait
from tests.airflow.conftest import await_nothing_left
from tests.airflow.server import Airflow

pytestmark = pytest.mark.airflow

_WITHIN = 20.0
"""Seconds in which an order has taken effect, on a machine that is busy: the job looks for orders
every 4.5 s.
"""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z?")


def _looks(server: Airflow, task: Task) -> list[datetime]:
    """When a task has looked for an order, by the log of the api-server."""
    text = (server.home / "api-server.log").read_text(errors="replace")
    asked = re.compile(rf"/execution/store/ti/{task.facts()['id']}/control\b")
    lines = [line for line in text.splitlines() if "GET" in line and asked.search(line)]
    return [datetime.fromisoformat(_TIME.findall(line)[0]) for line in lines]


def _order(task: Task, value: object, key: str, wanted: str) -> float:
    """Order ``value``, and wait for what comes of it. Returns how long that took, in seconds, as
    far as a client that looks now and then can tell.
    """
    began = time.monotonic()
    task.store("control", value)
    task.await_stored(key, wanted)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def runs(client: Client, folder: Path) -> Iterator[dict[str, Run]]:
    """A run of each DAG, started together."""
    names = ("steered", "steered_gang")
    client.await_dags(*names)
    found = {name: client.trigger(name, {"folder": str(folder)}) for name in names}
    yield found
    for run in found.values():
        run.end()


@pytest.fixture(scope="module")
def train(runs: dict[str, Run]) -> Task:
    """The task of a job that trains."""
    task = runs["steered"].task("train")
    task.await_text("rank 1 begins after step 0", seconds=150)
    return task


def test_a_pause_holds_the_ranks_and_acts_once(train: Task) -> None:
    took = _order(train, {"do": "pause", "why": "lunch"}, "state", "paused after step")
    assert took < _WITHIN, took
    assert "control" not in train.stored()
    step = train.stored()["progress"]["step"] if "progress" in train.stored() else 0
    assert train.stored()["control_answer"]["understood"] == "pause"
    took = _order(train, "resume", "state", "'runs'")
    assert took < _WITHIN, took
    assert train.await_stored("control_answer", "resumed")["asked"] == "resume"
    train.await_stored("progress", "seconds_left")
    assert train.stored()["progress"]["step"] > step
    assert "paused" not in train.stored()["state"]["is"]


def test_the_page_of_a_running_task_has_its_links_and_what_its_launch_has_come_to(
    train: Task, runs: dict[str, Run]
) -> None:
    client = train.run.client
    run_id, links = train.run.run_id, client.ask("GET", f"{train.path}/links")["extra_links"]
    assert links["TensorBoard"] == f"https://tb.example.com/?run={run_id}"
    assert links["Ranks and their logs"].endswith(
        f"/runs/{quote(run_id)}/tasks/train/plugin/elastic"
    )
    train.await_text("rank 1 begins")
    assert {"rank 0", "rank 1"} <= {record.get("logger") for record in train.log()}
    launch = train.facts()["rendered_fields"]["launch"]
    assert launch["rendezvous_id"].startswith("steered.train.")
    assert (launch["nodes"], launch["processes_per_node"]) == ("1", 2)
    node = runs["steered_gang"].task("train", 1)
    shown = node.facts()["rendered_fields"]["launch"]
    assert (shown["nodes"], shown["node"], shown["backend"]) == ("2", 1, "served")


def test_a_checkpoint_is_saved_and_told(train: Task, folder: Path) -> None:
    took = _order(train, "checkpoint", "checkpoint", "step")
    assert took < _WITHIN, took
    told = train.stored()["checkpoint"]
    (job,) = (path for path in folder.iterdir() if path.name.startswith("steered.train"))
    assert told["folder"] == str(job)
    assert list(job.glob(f"step-{told['step']}-*/COMMITTED"))
    value = train.await_stored("elastic", f"'committed': [{{'step': {told['step']}, ")
    assert (value["version"], value["try"], value["nodes"], value["world_size"]) == (1, 1, 1, 2)
    assert [rank["rank"] for rank in value["ranks"]] == [0, 1]
    assert all(rank["step"] and rank["pid"] for rank in value["ranks"])
    assert value["checkpoints"]["folder"] == str(job)
    assert value["checkpoints"]["next"] == told["step"]
    assert value["curves"]["metrics"]["loss"]


def test_what_is_no_order_is_answered(train: Task) -> None:
    train.store("control", "faster")
    answer = train.await_stored("control_answer", "faster")
    assert "wanted one of 'checkpoint', 'pause', 'resume', 'stop'" in answer["refused"]
    assert "control" not in train.stored()


def test_a_stopped_job_is_a_success_says_who_stopped_it_and_goes_on_once_it_is_cleared(
    train: Task, server: Airflow
) -> None:
    train.store("control", {"do": "stop", "why": "good enough"})
    train.run.finish("success")
    ranks = train.xcoms()["return_value"]
    assert ranks.keys() == {"0", "1"}
    (last,) = {rank["last"] for rank in ranks.values()}
    state = train.stored()["state"]["is"]
    assert state.startswith(f"was stopped after step {last}: ")
    assert "says stop: good enough" in state
    value = train.stored()["elastic"]
    assert (value["doing"], value["succeeded"], value["failure"]) == ("ended", True, None)
    assert value["outcome"] == state
    assert [(one["end"], one["last_step"]) for one in value["rounds"]] == [("stop", last)]
    assert "training" in value["account"]["text"]
    text = train.text()
    assert f"the job was stopped after step {last}: " in text
    assert "the key 'control' of the task's state says stop: good enough" in text
    await_nothing_left(server, train.run, seconds=20)
    events = train.run.client.ask(
        "GET",
        "assets/events",
        params={"source_run_id": train.run.run_id, "source_task_id": "train"},
    )
    (event,) = events["asset_events"]
    assert event["extra"]["checkpoint_step"] == last
    assert Path(event["extra"]["checkpoint_path"], "COMMITTED").is_file()
    train.clear()
    train.await_try(2)
    train.await_text(f"rank 0 begins after step {last}", try_number=2)
    value = train.await_stored("elastic", f"'resumed_from': {last}")
    assert [(one["try"], one["end"]) for one in value["rounds"]] == [(1, "stop"), (2, "")]
    train.run.mark("failed")


def test_a_gang_looks_for_orders_once_in_4_and_a_half_seconds_in_all(
    runs: dict[str, Run], server: Airflow
) -> None:
    nodes = [runs["steered_gang"].task("train", number) for number in (0, 1)]
    for number, node in enumerate(nodes):
        node.await_text(f"rank {number} begins after step", seconds=150)
    looks = wait(
        "four looks for an order",
        60,
        lambda: found if len(found := _looks(server, nodes[0])) >= 4 else None,
        runs["steered_gang"].tail,
    )
    # The api-server logs a look when it has answered, which a busy machine delays.
    assert (looks[-1] - looks[0]).total_seconds() >= 4.4 * (len(looks) - 1) - 4.0, looks
    assert _looks(server, nodes[1]) == []
    for node in nodes:
        node.await_stored("progress", "steps_per_second")
        node.await_stored("state", "'runs'")
    assert nodes[0].stored()["state"]["control"] == "taken here"
    assert nodes[1].stored()["state"]["control"] == "taken by the task instance with rank 0"
    wanted = ("'loss': [[", "'rounds': [{")
    told = zip(nodes, wanted, strict=True)
    values = [node.await_stored("elastic", text) for node, text in told]
    assert [value["node"] for value in values] == [0, 1]
    names = [value["label"] for value in values]
    assert [value["rounds"][-1]["nodes"] for value in values] == [names, names]
    assert [bool(value["curves"]["metrics"]) for value in values] == [True, False]


def test_one_order_holds_the_ranks_of_all_nodes(runs: dict[str, Run]) -> None:
    nodes = [runs["steered_gang"].task("train", number) for number in (0, 1)]
    took = _order(nodes[0], "pause", "state", "paused after step")
    assert took < _WITHIN, took
    (step,) = re.findall(r"paused after step (\d+)", nodes[0].stored()["state"]["is"])
    nodes[1].await_text(f"all ranks pause after step {step}")
    nodes[0].store("control", "resume")
    nodes[1].await_text("resume was raised")
