"""A node of a gang while its siblings are not there: it waits, gives its slot back, or fails. No
agent is started here.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
import structlog
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowRuntimeError,
    AirflowSkipException,
    ErrorType,
)
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider.execution.gang_node import run_node
from airflow_provider.execution.launch import Launch
from airflow_provider.execution.slot_wait import LAST_RUN
from airflow_provider.gang import sibling_node
from airflow_provider.gang.ledger_notice import NOTICE, LedgerNotice
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.served_ledger import served_place
from airflow_provider.gang.success_note import NOTE, SuccessNote
from airflow_provider.hooks.agent import AgentHook
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.entrypoint import Command
from llutil.errors import (
    AgentLostError,
    LaunchError,
    RendezvousError,
    RendezvousTimeoutError,
    ResultError,
    ServerLostError,
    StoppedError,
    WorkersFailedError,
)
from llutil.launcher.config import LaunchConfig
from llutil.launcher.run_id import TaskKey
from llutil.ledgers.served.server import LedgerServer
from llutil.system.addresses import machine_id

TOKEN = "0@2026"
KEY = TaskKey("d", "t", "r", 1)
DONE = SuccessNote(node=0, nodes=3, rerun_token=TOKEN, ranks=(0, 1), world_size=2)


def ago(seconds):
    return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)


class Instance:
    """Node 1's task instance. ``looks`` are what Airflow says of node 0, one a look, and the last
    one for ever; at "refused" the deployment's XCom backend fails. ``notices`` are what node 0 has
    pushed, likewise.
    """

    dag_id, run_id, try_number = "d", "r", 1

    def __init__(self, *looks):
        self._looks = list(looks)
        self._refused = False
        self.notices = []
        self.start_date = ago(0)
        self.first_reschedule_date = None

    def get_task_states(self, **_):
        state = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        self._refused = state == "refused"
        if state == "away":
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        state = "success" if self._refused else state  # whose note is looked for
        return {"r": {"t_0": state, "t_1": "running", "t_2": "running"}}

    def xcom_pull(self, task_ids, key):
        if self._refused:
            raise ConnectionError("no bucket")
        if key == NOTICE:
            left = self.notices
            notice = left.pop(0) if len(left) > 1 else next(iter(left), None)
            return notice and [notice.to_json()]
        return [DONE.to_json()] if key == NOTE and self._looks == ["success"] else []

    def get_first_reschedule_date(self, context):
        if self._looks == ["away"]:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        return self.first_reschedule_date


class PlayedHook(AgentHook):
    """A hook whose agents end as ``plan`` says, one launch after the other: what a launch raises,
    or the seconds of an idle check, in a list. A launch with nothing left in it is stopped, or has
    succeeded.
    """

    def __init__(self, plan=(), ran=False):
        super().__init__(python="/no/agent/is/to/be/started")
        self._plan = list(plan)
        self.ran = ran
        self.timeouts = []
        self.endpoints = []
        self.checks = []
        self.ends_with = None

    def run(self, spec, *, idle_check, **_):
        self.timeouts.append(spec.config.rendezvous_options()["timeout"])
        self.endpoints.append(spec.config.rdzv_endpoint)
        for what in self._plan.pop(0):
            if isinstance(what, Exception):
                raise what
            reason = idle_check(what)
            self.checks.append(reason)
            if isinstance(reason, LaunchError):
                raise reason
            if reason is not None:
                self.stop(reason)
                raise self.ends_with or StoppedError(reason)
        return {0: "value"}


class StateStore(dict):
    """The task's state store."""

    def set(self, key, value):
        self[key] = value


class SilentStateStore(StateStore):
    """A state store of the user's own, which fails in a way of its own."""

    def get(self, key):
        raise ConnectionError("reset by peer")

    def set(self, key, value):
        raise ConnectionError("reset by peer")


class Job:
    """What node 1 has to run; nothing of it is ever run here."""

    pool, returns = "gpu", True

    def __init__(self, ti, hook, config, gang_timeout):
        self.context = {
            "ti": ti,
            "dag_run": SimpleNamespace(run_after=ago(0)),
            "task_state_store": StateStore(),
        }
        self.gang_timeout = gang_timeout
        self._hook = hook
        self._config = config

    def launch(self, *, locally):
        assert not locally
        return Launch(
            config=self._config,
            entrypoint=Command("/does/not/exist"),
            key=KEY,
            try_number=1,
            result_limit=1,
            retry=LaunchRetry(wait_initial=0, jitter=0),
        )

    def hook(self, label=""):
        return self._hook

    def on_running(self, running):
        pass


@pytest.fixture(autouse=True)
def _own_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def run_job(job, min_nodes=2):
    with structlog.testing.capture_logs() as logged:
        found = run_node(GangNode(KEY, 3, min_nodes, TOKEN), job, structlog.get_logger("t"))
    return found, [record["event"] for record in logged]


class TestWhoseEarlierTryHadRanks:
    """The job has succeeded on node 0 and on node 1, whose earlier try pushed nothing."""

    def run(self, returns):
        ti = Instance("success")
        ti.xcom_pull = lambda task_ids, key: [replace(DONE, nodes=2, ranks=(0,)).to_json()]
        job = Job(ti, PlayedHook(), LaunchConfig(2, 2, 1), 1000.0)
        job.returns = returns
        return run_node(GangNode(KEY, 2, 2, TOKEN), job, structlog.get_logger("t"))

    def test_it_fails_and_says_that_values_are_lost(self):
        with pytest.raises(ResultError, match="an earlier try had 1 of its ranks"):
            self.run(returns=True)

    def test_it_succeeds_where_nobody_wants_values(self):
        assert self.run(returns=False)[0] == {}


class TestWithoutAConnection:
    """Nodes that meet at node 0: a node waits for it before it starts an agent."""

    def run(self, *looks, gang_timeout=1000.0, timeout=0.001):
        config = LaunchConfig(2, 3, 1, **served_place({"timeout": timeout}))
        return run_job(Job(Instance(*looks), PlayedHook(), config, gang_timeout))

    @pytest.fixture
    def tries(self, monkeypatch):
        """The notices of two tries of node 0, both of which answer still, however busy the machine
        is.
        """
        monkeypatch.setattr(sibling_node, "_KNOCK", 60.0)
        servers = [LedgerServer("127.0.0.1", 0, secret=secret) for secret in ("one", "two")]
        yield [
            LedgerNotice(
                ti_id=server.secret,
                try_number=number,
                rerun_token=TOKEN,
                endpoint=f"127.0.0.1:{server.port}",
                secret=server.secret,
                machine=machine_id(),
            )
            for number, server in enumerate(servers, 1)
        ]
        for server in servers:
            server.close()

    def test_a_node_without_workers_notices_that_node_0_runs_again_and_meets_its_next_try(
        self, tries
    ):
        ti = Instance("running")
        ti.notices = [tries[0], tries[0], tries[1]]
        hook = PlayedHook([[10, 20], []])
        config = LaunchConfig(2, 3, 1, **served_place({"timeout": 30.0}))
        job = Job(ti, hook, config, 1000.0)
        (results, _), logged = run_job(job)
        assert results == {0: "value"}
        assert hook.endpoints == [one.endpoint for one in tries]
        assert hook.checks[0] is None
        assert isinstance(hook.checks[1], ServerLostError)
        assert any("runs again, and that ledger is over" in line for line in logged)

    @pytest.mark.parametrize(
        "error",
        [
            AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR)),
            ConnectionError("no bucket"),
        ],
    )
    def test_an_airflow_that_does_not_say_where_node_0_is_ends_no_launch(self, tries, error):
        class Mute(Instance):
            def xcom_pull(self, task_ids, key):
                found = super().xcom_pull(task_ids, key)
                if not self.notices[1:]:
                    raise error
                return found

        ti = Mute("running")
        ti.notices = [tries[0], tries[0], tries[0]]
        hook = PlayedHook([[10]])
        config = LaunchConfig(2, 3, 1, **served_place({"timeout": 30.0}))
        (results, _), logged = run_job(Job(ti, hook, config, 1000.0))
        assert results == {0: "value"}
        assert any("Airflow does not say where node 0 is" in line for line in logged)

    def test_it_gives_its_slot_back_and_comes_again(self):
        with pytest.raises(AirflowRescheduleException) as caught:
            self.run("queued")
        assert caught.value.reschedule_date > dt.datetime.now(dt.UTC)

    def test_when_the_gangs_own_time_is_over_it_fails_for_good_and_says_who_is_missing(self):
        with pytest.raises(AirflowFailException) as caught:
            self.run("queued", gang_timeout=0)
        told = str(caught.value)
        assert "2 nodes are there, but not the one that serves the job's ledger" in told
        assert "missing: node 0 (queued in pool 'gpu'), and the 0 s of gang_timeout are" in told
        assert "no ledger to meet at for" in told

    @pytest.mark.parametrize("returns", [True, False])
    def test_values_that_an_earlier_try_lost_matter_only_where_somebody_wants_them(self, returns):
        ti = Instance("running", "running", "success")
        ti.xcom_pull = lambda task_ids, key: (
            [replace(DONE, nodes=2, ranks=(0,)).to_json()] if key == NOTE else []
        )
        config = LaunchConfig(2, 2, 1, **served_place({"timeout": 30.0}))
        job = Job(ti, PlayedHook(), config, 1000.0)
        job.returns = returns
        node = GangNode(KEY, 2, 2, TOKEN)
        if returns:
            with pytest.raises(ResultError, match="an earlier try had 1 of its ranks"):
                run_node(node, job, structlog.get_logger("t"))
        else:
            assert run_node(node, job, structlog.get_logger("t"))[0] == {}

    def test_a_job_that_succeeds_meanwhile_lets_it_end_with_no_ranks(self):
        (results, note), logged = self.run("running", "running", "success", timeout=30.0)
        assert results == {}
        assert (note.ranks, note.world_size) == ((), 0)
        assert "the job succeeded without this node, on node 0" in logged
        assert logged[-1] == "the job did not need node 1, which ends as a success, with no ranks"


class TestByAConnection:
    """Nodes that meet at a store: a node's agent waits there for the others."""

    def job(self, plan, *looks, gang_timeout=1000.0, ran=False, **config):
        self.hook = PlayedHook(plan, ran)
        where = {"rdzv_endpoint": "h:1", "rdzv_configs": {"timeout": 100}} | config
        return Job(Instance(*looks), self.hook, LaunchConfig(3, 3, 1, **where), gang_timeout)

    def run(self, plan, *looks, **fields):
        return run_job(self.job(plan, *looks, **fields), min_nodes=3)

    def test_a_sibling_that_has_started_but_not_joined_uses_up_no_try(self):
        with pytest.raises(AirflowRescheduleException):
            self.run([[RendezvousTimeoutError("no round")]], "running")

    def test_a_sibling_that_starts_just_when_the_wait_is_over_uses_up_no_try(self):
        for error in (RendezvousTimeoutError("no round"), RendezvousError("no store")):
            with pytest.raises(AirflowRescheduleException):
                self.run([[error]], "queued", "queued", "running")

    def test_a_sibling_without_a_slot_gets_this_nodes(self):
        with pytest.raises(AirflowRescheduleException):
            self.run([[10, 70, 101]], "queued")
        assert self.hook.checks == [None, None, "this node gives its slot back"]

    def test_siblings_with_a_slot_are_waited_for_and_named_once(self):
        (results, _), logged = self.run([[10, 101, 111, 121]], "running")
        assert results == {0: "value"}
        (told,) = (line for line in logged if "enough nodes have started: node 0, node 2" in line)
        assert "They are waited for, " in told

    def test_its_rendezvous_lasts_as_long_as_a_sibling_may_take_to_start(self):
        self.run([[]], "running", rdzv_configs={"timeout": 1000})
        (long,) = self.hook.timeouts
        assert 1750 <= long <= 2000

    def test_a_timeout_that_nobody_spelled_out_is_drawn_too(self):
        found = set()
        for _ in range(5):
            self.run([[]], "running", rdzv_configs={})
            found |= set(self.hook.timeouts)
        assert all(900 * 1.75 <= timeout <= 900 * 2 for timeout in found)
        assert len(found) > 1

    def test_a_sibling_that_has_failed_for_good_ends_the_wait_for_good(self):
        with pytest.raises(AirflowFailException, match=r"would wait in vain.*node 0 is failed"):
            self.run([[10]], "running", "failed")

    @pytest.mark.parametrize("answer", ["away", "refused"])
    def test_an_airflow_that_does_not_answer_uses_up_no_try(self, answer):
        with pytest.raises(AirflowRescheduleException):
            self.run([[101, RendezvousTimeoutError("no round")]], "running", answer)
        assert self.hook.checks == [None]

    @pytest.mark.parametrize("answer", ["away", "refused"])
    def test_an_airflow_that_does_not_answer_at_the_first_look_is_no_reason_not_to_launch(
        self, answer
    ):
        (results, _), logged = self.run([[]], answer, "running")
        assert results == {0: "value"}
        assert any("Airflow does not say how the other nodes are" in line for line in logged)

    def test_an_agent_that_is_lost_while_it_gives_the_slot_back_uses_up_no_try(self):
        job = self.job([[101]], "queued")
        self.hook.ends_with = AgentLostError("killed")
        with pytest.raises(AirflowRescheduleException):
            run_job(job, min_nodes=3)

    def test_who_was_stopped_while_the_server_was_lost_does_not_come_again(self):
        job = self.job([[ServerLostError("gone")]], "running")
        self.hook.stop("cleared")
        with pytest.raises(ServerLostError):
            run_job(job, min_nodes=3)

    def test_a_gang_that_was_skipped_skips_who_is_late(self):
        with pytest.raises(AirflowSkipException, match="node 0 is skipped"):
            self.run([[]], "skipped")

    def test_a_store_that_fails_while_all_are_there_is_tried_again_and_then_fails_the_try(self):
        plan = [[RendezvousError("the store is away")]] * 3
        with pytest.raises(RendezvousError, match="the store is away"):
            self.run(plan, "running")
        assert len(self.hook.timeouts) == 3

    def test_the_loss_of_the_server_is_waited_out_and_then_uses_up_no_try(self):
        job = self.job([[ServerLostError("gone")]] * 3, "running")
        with structlog.testing.capture_logs() as logged, pytest.raises(AirflowRescheduleException):
            run_node(GangNode(KEY, 3, 3, TOKEN), job, structlog.get_logger("t"))
        assert len(self.hook.timeouts) == 3
        (told,) = (one for one in logged if "gives its slot back" in one["event"])
        assert told["event"].startswith("gone; node 1 gives its slot back until ")

    def test_the_loss_of_a_server_with_whom_ranks_have_run_is_waited_out_as_often_as_it_comes(self):
        job = self.job([[ServerLostError("gone")]] * 5 + [[]], "running")
        self.hook.world_size = 2  # in each launch
        results, _ = run_node(GangNode(KEY, 3, 3, TOKEN), job, structlog.get_logger("t"))
        assert results == {0: "value"}
        assert len(self.hook.timeouts) == 6

    def test_a_rank_that_fails_fails_the_try(self):
        with pytest.raises(WorkersFailedError):
            self.run([[WorkersFailedError("rank 0")]], "queued")

    def test_who_was_stopped_by_somebody_else_says_so(self):
        with pytest.raises(StoppedError, match="cleared"):
            self.run([[StoppedError("cleared")]], "queued")

    @pytest.mark.parametrize("ran", [True, False])
    def test_a_state_store_of_the_users_own_that_fails_uses_up_no_try(self, ran):
        job = self.job([[RendezvousTimeoutError("x")]], "queued", ran=ran)
        job.context["task_state_store"] = SilentStateStore()
        with pytest.raises(AirflowRescheduleException):
            run_job(job, min_nodes=3)

    def test_the_time_to_form_counts_from_when_the_job_last_ran(self):
        job = self.job([[RendezvousTimeoutError("x")]], "queued", ran=True, gang_timeout=60)
        job.context["ti"].start_date = ago(3600)
        with pytest.raises(AirflowRescheduleException):
            run_job(job, min_nodes=3)
        again = self.job([[RendezvousTimeoutError("x")]], "queued", gang_timeout=60)
        again.context["task_state_store"] = job.context["task_state_store"]
        again.context["ti"].first_reschedule_date = ago(3600)
        with pytest.raises(AirflowRescheduleException):
            run_job(again, min_nodes=3)
        over = self.job([[RendezvousTimeoutError("x")]], "queued", gang_timeout=60)
        over.context["task_state_store"][LAST_RUN] = ago(61).isoformat()
        over.context["ti"].first_reschedule_date = ago(3600)
        with pytest.raises(AirflowFailException, match="60 s of gang_timeout are over"):
            run_job(over, min_nodes=3)
