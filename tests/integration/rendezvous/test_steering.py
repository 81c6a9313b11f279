"""Ranks of several nodes save, pause and stop at one step, whoever asks for it and in which way."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from llutil.events.events import Events
from tests.integration.rendezvous.jobs import Job, until
from tests.integration.rendezvous.training_jobs import start, trains
from tests.support.stores import SERVED, STORES, on_stores
from tests.support.training_ranks import last_round, ranks_of

pytestmark = [pytest.mark.launch]
_ON_STORES = pytest.mark.parametrize("store", STORES)
_SERVED = pytest.mark.parametrize("store", [SERVED], ids=str)  # it needs no server


@_ON_STORES
def test_flags_on_one_nodes_page_steer_the_ranks_of_all(job: Job) -> None:
    agents = start(job, "a", "b", lockstep=False)
    ranks = trains(job, "a", "b")
    pages = {one.node: Events.attach(one.page) for one in ranks}
    soon = time.monotonic() + 30

    pages["b"].trigger_save_checkpoint.set()
    for page in pages.values():
        until("saved", page.finished_save_checkpoint.is_set)
    until("written down", lambda: all(one.saved for one in last_round(job.folder)))
    (saved,) = {one.saved for one in last_round(job.folder)}
    assert len(saved) == 1

    pages["a"].pause.set()
    for page in pages.values():
        assert page.paused.wait(soon)
    (paused,) = {one.steps[-1] for one in last_round(job.folder)}
    time.sleep(0.3)
    assert {one.steps[-1] for one in last_round(job.folder)} == {paused}
    pages["b"].resume.set()
    trains(job, "a", "b", after=paused)
    assert not any(page.paused.is_set() for page in pages.values())

    pages["b"].stop_all_tasks.set()
    values = [agent.ends()["values"] for agent in agents]
    (stopped,) = {one.stopped for one in last_round(job.folder)}
    assert {one.saved for one in last_round(job.folder)} == {(*saved, stopped)}
    assert {value for of_node in values for value in of_node.values()} == {stopped}
    assert all("was stopped after step" in agent.told for agent in agents)
    assert all(" % training" in agent.told for agent in agents)


@on_stores("leaves", ("leader",), ("follower",))
def test_a_node_that_has_to_go_saves_first_and_the_others_go_on_from_there(
    job: Job, leaves: str
) -> None:
    start(job, "a", "b", lockstep=True)
    leader, follower = job.members(2)
    goes, stays = (leader, follower) if leaves == "leader" else (follower, leader)
    trains(job, "a", "b")
    goes.process.signal(signal.SIGTERM)
    goes.ends("SignalException")
    gone = [one for one in ranks_of(job.folder) if one.node == goes.name]
    (step,) = {one.stopped for one in gone}
    assert step is not None
    assert {(one.saved, one.returned) for one in gone} == {((step,), step)}
    first = [one for one in ranks_of(job.folder) if one.world == 4]
    assert {one.wrote for one in first} == {(step,)}
    assert {one.steps[-1] for one in first} == {step}
    assert {one.resumed for one in trains(job, stays.name)} == {step}
    Events.attach(last_round(job.folder)[0].page).stop_all_tasks.set()
    stays.ends()


@_SERVED
def test_a_job_whose_nodes_all_have_to_go_saves_first_and_redoes_one_step_at_most(
    job: Job,
) -> None:
    agents = start(job, "a", "b", lockstep=True)
    trains(job, "a", "b")
    # All at once: one that hears of it later than the other might begin a round alone.
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
        for agent in agents:
            agent.process.signal(number)
    for agent in agents:
        agent.ends("SignalException")
    ranks = ranks_of(job.folder)
    assert len({one.round for one in ranks}) == 1
    saved = {one.wrote[-1] for one in ranks}
    furthest = max(one.steps[-1] for one in ranks)
    start(job, "c", lockstep=True)
    (resumed,) = {one.resumed for one in trains(job, "c")}
    assert resumed in saved
    assert furthest - resumed <= 1
    Events.attach(last_round(job.folder)[0].page).stop_all_tasks.set()
    job.agents[-1].ends()


@_SERVED
def test_a_job_that_was_told_to_go_resumes_at_its_step(job: Job) -> None:
    (agent,) = start(job, "a", lockstep=True)
    trains(job, "a")
    agent.process.signal(signal.SIGTERM)
    agent.ends("SignalException")
    (step,) = {one.stopped for one in ranks_of(job.folder)}
    assert step is not None
    (again,) = start(job, "b", lockstep=True)
    assert {one.resumed for one in trains(job, "b")} == {step}
    again.process.signal(signal.SIGTERM)
    again.ends("SignalException")


@_SERVED
def test_a_newcomer_is_let_in_after_a_checkpoint_and_costs_no_step(job: Job) -> None:
    size = {"min_nodes": 2, "max_nodes": 3, "rdzv_configs": {"last_call_timeout": 1}}
    start(job, "a", "b", lockstep=True, **size)
    trains(job, "a", "b")
    start(job, "c", lockstep=True, **size)
    ranks = trains(job, "a", "b", "c")
    first = [one for one in ranks_of(job.folder) if one.world == 4]
    (saved,) = {one.wrote for one in first}
    assert {(one.steps[-1],) for one in first} == {saved}
    assert {(one.resumed,) for one in ranks} == {saved}
    Events.attach(ranks[0].page).stop_all_tasks.set()
    for agent in job.agents:
        agent.ends()


def test_a_rank_that_ignores_the_stop_gets_the_signal_long_before_the_grace_period_is_over(
    job: Job, tmp_path: Path
) -> None:
    script = tmp_path / "ignores.py"
    script.write_text(
        "import sys, time; from llutil import worker\n"
        "for step in range(1, 10**9):\n"
        "    time.sleep(0.001)\n"
        "    worker.step(step)\n"
        "    if step == 20: open(f'{sys.argv[1]}/steps', 'x')\n"
    )
    agent = job.node("a", max_nodes=1, script=str(script), shutdown_timeout=1000)
    until("steps", (job.folder / "steps").exists)
    agent.process.signal(signal.SIGTERM)
    agent.ends("SignalException")
    assert "went on after step" in agent.told


DEBUGGED = """
import os, sys, threading, time
from llutil import launcher
from llutil.launcher import worker

events = worker.events()

def wait_for(what):
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)

if worker.rank() == 0:
    terminal, path = os.openpty()
    os.environ["LLUTIL_TERMINAL"] = os.ttyname(path)

    def person():
        wait_for(lambda: os.path.exists(f"{sys.argv[1]}/known"))
        os.write(terminal, b"c\\n")

    threading.Thread(target=person).start()
    launcher.breakpoint()
    print("went on", flush=True)
else:
    wait_for(lambda: events.debugged)
    open(f"{sys.argv[1]}/known", "x").close()
    wait_for(lambda: not events.debugged)
"""


@_ON_STORES
def test_every_node_knows_from_begin_to_end_that_a_rank_is_debugged(
    job: Job, tmp_path: Path
) -> None:
    script = tmp_path / "debugged.py"
    script.write_text(DEBUGGED)
    agents = [job.node(name, min_nodes=2, max_nodes=2, script=str(script)) for name in "ab"]
    for agent in agents:
        agent.ends()
    assert any("went on" in agent.told for agent in agents)
