"""A node whose gang meets at its first node, while that is not there: no agent is started, and its
slot is given back.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from types import SimpleNamespace

import pytest
import structlog
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from airflow_provider.execution.gang_node import run_node
from airflow_provider.execution.launch import Launch
from airflow_provider.gang.hosted_store import hosted_place
from airflow_provider.gang.node import NOTE, GangNode, SuccessNote
from airflow_provider.hooks.agent import AgentHook
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.entrypoint import Command
from llutil.errors import RendezvousError
from llutil.launcher.config import LaunchConfig
from llutil.launcher.run_id import TaskKey

TOKEN = "0@2026"
KEY = TaskKey("d", "t", "r", 1)
DONE = SuccessNote(node=0, nodes=3, rerun_token=TOKEN, ranks=(0,), world_size=2)


class Instance:
    """Node 1's task instance. ``looks`` are what Airflow says of node 0, one a look, and the last
    one for ever.
    """

    dag_id, run_id, try_number = "d", "r", 1

    def __init__(self, *looks):
        self._looks = list(looks)
        self.start_date = dt.datetime.now(dt.UTC)

    def get_task_states(self, **_):
        state = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        return {"r": {"t_0": state, "t_1": "running", "t_2": "running"}}

    def xcom_pull(self, task_ids, key):
        return [DONE.to_json()] if key == NOTE and self._looks == ["success"] else []

    def get_first_reschedule_date(self, context):
        return None


class Job:
    """What node 1 has to run; nothing of it is ever run here."""

    pool, returns = "gpu", True

    def __init__(self, ti, gang_timeout, patience):
        self.context = {
            "ti": ti,
            "dag_run": SimpleNamespace(run_after=dt.datetime.now(dt.UTC)),
        }
        self.gang_timeout = gang_timeout
        self.config = LaunchConfig(2, 3, 1, **hosted_place({"timeout": patience}))

    def launch(self, *, locally):
        assert not locally
        return Launch(
            config=self.config,
            entrypoint=Command("/does/not/exist"),
            key=KEY,
            try_number=1,
            result_limit=1,
            retry=LaunchRetry(),
        )

    def hook(self, label=""):
        return AgentHook(python="/no/agent/is/to/be/started")

    def on_running(self, running):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(*looks, gang_timeout=1000.0, patience=0.001):
        job = Job(Instance(*looks), gang_timeout, patience)
        with structlog.testing.capture_logs() as logged:
            found = run_node(GangNode(KEY, 3, 2, TOKEN), job, structlog.get_logger("t"))
        return found, [record["event"] for record in logged]

    return run


def test_it_gives_its_slot_back_and_comes_again(run):
    with pytest.raises(AirflowRescheduleException) as caught:
        run("queued")
    assert caught.value.reschedule_date > dt.datetime.now(dt.UTC)


def test_when_the_gangs_own_time_is_over_it_fails_for_good_and_says_who_is_missing(run):
    with pytest.raises(AirflowFailException) as caught:
        run("queued", gang_timeout=0)
    told = str(caught.value)
    assert "2 nodes are there, but not the one that hosts the job's store" in told
    assert "missing: node 0 (queued in pool 'gpu'), and the 0 s of gang_timeout are over" in told
    assert "no store to meet at for" in told


def test_a_node_that_is_there_and_says_nothing_fails_the_try(run):
    with pytest.raises(RendezvousError, match="node 0 has not said yet where it hosts"):
        run("running")


def test_a_job_that_succeeds_meanwhile_lets_it_end_with_no_ranks(run):
    (results, note), logged = run("running", "running", "running", "success", patience=30.0)
    assert results == {}
    assert (note.ranks, note.world_size) == ((), 0)
    assert "the job succeeded without this node, on node 0" in logged
    assert logged[-1] == "the job did not need node 1, which ends as a success, with no ranks"
