"""How rounds and jobs end: who has finished waits for the others, and what is lost costs no
restart.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llutil.checkpoints.place import FOLDER
from llutil.checkpoints.saves import Saves
from tests.integration.rendezvous.jobs import Job, until
from tests.support.store_history import ServerPart, read_history
from tests.support.stores import STORES

pytestmark = [
    pytest.mark.launch,
    pytest.mark.fault,
    pytest.mark.parametrize("store", STORES),
]

_PAIR = {"min_nodes": 2, "max_nodes": 2}


def _finish_first(job: Job, name: str) -> None:
    """Have the workers of that node succeed, and wait until it has reported so."""
    job.succeed(name)
    until("a report", lambda: len(job.records("reports/000001.000001")) == 1)


def test_a_node_that_has_finished_waits_and_runs_again_if_the_others_must(job: Job) -> None:
    first, second = [job.node(name, max_restarts=1, **_PAIR) for name in "ab"]
    job.runs("a", "b", restarts=0)
    _finish_first(job, "a")
    assert first.process.alive
    job.fail("b")
    job.runs("a", "b", restarts=1)
    job.succeed()
    assert first.ends()["values"] | second.ends()["values"] == {"0": None, "1": None}


def test_a_node_that_is_lost_after_it_has_finished_ends_nothing(
    job: Job, server: ServerPart
) -> None:
    first, second = [job.node(name, max_restarts=0, **_PAIR) for name in "ab"]
    job.runs("a", "b")
    _finish_first(job, "a")
    first.vanish()
    until("the loss of a", lambda: len(job.records("members")) == 1)
    job.succeed()
    assert len(second.ends()["values"]) == 1
    assert len(read_history(server).assignments) == 1


def test_a_lost_host_costs_no_restart_though_the_peers_workers_fail_long_before_its_lease_is_over(
    job: Job, server: ServerPart
) -> None:
    nodes = [job.node(name, min_nodes=2, max_nodes=3, max_restarts=0) for name in "abc"]
    job.runs("a", "b", "c")
    nodes[1].vanish()
    for name in "ac":
        job.fail(name)
    assert {one["restarts"] for one in job.runs("a", "c")} == {0}
    job.succeed()
    for agent in (nodes[0], nodes[2]):
        agent.ends()
    assert [len(one.seats) for one in read_history(server).assignments] == [3, 2]


def test_a_job_whose_first_node_is_lost_at_its_end_is_noted_as_a_success(
    job: Job, server: ServerPart, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    with Saves({FOLDER: str(folder)}).save(7) as path:
        Path(path, "model").touch()
    (folder / ".attempts/of-a-round").mkdir(parents=True)
    options = {**_PAIR, "max_restarts": 0, "checkpoint_path": str(tmp_path)}
    nodes = {name: job.node(name, **options) for name in "ab"}
    first, second = (one["node"] for one in job.runs("a", "b"))
    _finish_first(job, first)
    nodes[first].vanish()
    until("the loss of the first", lambda: len(job.records("members")) == 1)
    job.succeed()
    nodes[second].ends()
    assert len(read_history(server).assignments) == 1
    assert not (folder / ".attempts").exists()
    assert (folder / ".succeeded-1").exists()
