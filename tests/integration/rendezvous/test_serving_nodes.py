"""Jobs whose ledger one of their own nodes serves, as users without a store start them: all agents
have the same endpoint, and it is this machine's.
"""

from __future__ import annotations

import signal

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.events.events import Events
from tests.integration.rendezvous.conftest import MakeJob
from tests.integration.rendezvous.jobs import Agent, Job, until
from tests.integration.rendezvous.training_jobs import start, trains
from tests.support.ports import free_ports
from tests.support.stores import SERVED_BY_A_NODE
from tests.support.training_ranks import ranks_of

_SERVES = "this node serves the job's ledger at"

pytestmark = [
    pytest.mark.launch,
    pytest.mark.fault,
    pytest.mark.parametrize("store", [SERVED_BY_A_NODE], ids=str),
]


@pytest.fixture
def job(make_job: MakeJob) -> Job:
    """A job of two nodes or three, at a port of this machine."""
    endpoint = Endpoint("127.0.0.1", free_ports(1)[0])
    return make_job(endpoint, min_nodes=2, max_nodes=3, max_restarts=0)


def _start(job: Job) -> tuple[Agent, Agent]:
    """Two nodes that have begun a round; the one that serves first."""
    agents = [job.node(name) for name in "ab"]
    job.runs("a", "b")
    (serving,) = [one for one in agents if _SERVES in one.told]
    (other,) = [one for one in agents if one is not serving]
    return serving, other


def test_one_of_the_agents_serves_and_stays_until_the_others_know_how_the_job_ended(
    job: Job,
) -> None:
    _start(job)
    job.node("c")
    job.runs("a", "b", "c", restarts=0)
    job.succeed()
    values = [agent.ends()["values"] for agent in job.agents]
    assert sorted(rank for one in values for rank in one) == ["0", "1", "2"]


def test_who_knows_another_secret_or_is_of_another_job_is_refused_and_does_no_harm(
    job: Job, make_job: MakeJob
) -> None:
    _start(job)
    told = {
        "guess": (job.node("guess", rdzv_configs={"secret": "guess"}), "does not accept this node"),
        "other": (
            make_job(*job.endpoints, run_id="other").node("other"),
            "it is that of run 'job' and not of 'other'; each job needs a port of its own",
        ),
    }
    for agent, text in told.values():
        end = agent.ends("LedgerRefused")
        assert text in end["text"]
        assert not end["retryable"]
    job.succeed()
    for agent in job.agents[:2]:
        assert len(agent.ends()["values"]) == 1


def test_when_the_serving_agent_is_killed_the_rest_train_on_and_meet_again_at_the_next_one(
    job: Job,
) -> None:
    serving, other = _start(job)
    pids = {one["pid"] for one in job.workers(node=other.name)}
    serving.kill()
    until("the session is suspended", lambda: "is suspended" in other.told)
    assert {one["pid"] for one in job.workers(node=other.name)} == pids
    assert other.process.alive
    again = job.node("again")
    job.runs("again", other.name, seconds=25)
    assert _SERVES in again.told
    job.succeed()
    for agent in (again, other):
        assert len(agent.ends()["values"]) == 1


def test_a_serving_node_that_has_to_go_saves_first_and_its_next_life_resumes_there(
    make_job: MakeJob,
) -> None:
    job = make_job(Endpoint("127.0.0.1", free_ports(1)[0]))
    start(job, "a", "b", lockstep=True, min_nodes=2)
    trains(job, "a", "b")
    (serving,) = [one for one in job.agents if _SERVES in one.told]
    (other,) = [one for one in job.agents if one is not serving]
    serving.process.signal(signal.SIGTERM)
    serving.ends("SignalException")
    first = ranks_of(job.folder)
    ((step,),) = {one.wrote for one in first}
    assert {one.stopped for one in first if one.node == serving.name} == {step}
    start(job, "again", lockstep=True, min_nodes=2, max_nodes=2)
    crew = trains(job, "again", other.name)
    assert {one.resumed for one in crew} == {step}
    Events.attach(crew[0].page).stop_all_tasks.set()
    for agent in (other, job.agents[-1]):
        assert len(agent.ends()["values"]) == 2
