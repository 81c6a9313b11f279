"""A sibling of a gang's node 0: what it does until node 0 serves the ledger, and when that ends."""

from __future__ import annotations

import pytest
import structlog
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider.gang import sibling_node
from airflow_provider.gang.ledger_notice import NOTICE, LedgerNotice
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.reschedule import SlotTimeout
from airflow_provider.gang.served_ledger import served_place
from airflow_provider.gang.sibling_node import NotNeededError, ServerMissingError, SiblingNode
from airflow_provider.gang.success_note import NOTE, SuccessNote
from llutil.errors import StoppedError
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.launcher.run_id import TaskKey
from llutil.ledgers.served.server import LedgerServer
from llutil.system.addresses import machine_id

TOKEN = "0@2026"
CONFIG = LaunchConfig(2, 2, 1, **served_place({"timeout": 60.0}))
DONE = SuccessNote(node=0, nodes=2, rerun_token=TOKEN, ranks=(0,), world_size=1)


def notice(endpoint="10.0.0.1:5000", **fields):
    given = {"ti_id": "an id", "try_number": 1, "rerun_token": TOKEN, "secret": "secret"} | fields
    return LedgerNotice(endpoint=endpoint, machine=machine_id(), **given)


class Airflow:
    """What a task asks of Airflow: the states of node 0, one a look, and what it has pushed by
    then, which may also be an error of the XCom backend.
    """

    dag_id, run_id = "d", "r"

    def __init__(self, *looks):
        self.looks = list(looks)

    def get_task_states(self, **_):
        state = self.looks[0][0]
        if state == "away":
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        return {"r": {"t_0": state, "t_1": "running"}}

    def xcom_pull(self, task_ids, key):
        assert task_ids == "t"
        kind = {NOTE: SuccessNote, NOTICE: LedgerNotice}[key]
        found = self.looks[0][1]
        if isinstance(found, Exception):
            raise found
        return [found.to_json()] if isinstance(found, kind) else None

    def go_on(self):
        if len(self.looks) > 1:
            self.looks.pop(0)


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """A server of this process answers, however busy the machine is."""
    monkeypatch.setattr(sibling_node, "_KNOCK", 60.0)


@pytest.fixture(scope="module")
def server():
    made = LedgerServer("127.0.0.1", 0, secret="secret")
    yield made
    made.close()


@pytest.fixture
def there(server):
    """The notice of the launch that serves."""
    return notice(f"127.0.0.1:{server.port}")


class Waiting:
    """A sibling that waits. Each sleep is a step to the next look; nobody really sleeps."""

    def __init__(self, airflow, absent=60.0, started=60.0, stop_after=100):
        self.airflow = airflow
        self.slept = []
        self.node = GangNode(TaskKey("d", "t", "r", 1), 2, 2, TOKEN)
        self.sibling = SiblingNode(
            self.node,
            airflow,
            structlog.get_logger("t"),
            returns=True,
            timeout=SlotTimeout(absent=absent, started=started),
            sleep=self.sleep,
            stopped=lambda: len(self.slept) >= stop_after,
            draw=lambda: 0.5,
        )

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.airflow.go_on()

    def meet(self):
        return self.sibling.meet(CONFIG)

    def lost(self):
        return self.sibling.lost(self.node.view(self.airflow, server=0))


class TestMeet:
    def test_it_meets_where_a_running_node_0_says_and_answers(self, there):
        waiting = Waiting(Airflow(("queued", there), ("running", None), ("running", there)))
        config = waiting.meet()
        assert config.rdzv_endpoint == there.endpoint
        assert config.rdzv_configs == {"timeout": 60.0, "serves": False, "secret": "secret"}
        assert waiting.slept == [0.5, 1.0]
        assert problems_of(config) == []

    def test_an_address_that_is_another_launchs_by_now_is_never_used(self, there):
        stale = notice(there.endpoint, secret="of an earlier try")
        fresh = notice(there.endpoint, try_number=2)
        with structlog.testing.capture_logs() as logged:
            config = Waiting(Airflow(("running", stale), ("running", fresh))).meet()
        assert config.rdzv_configs["secret"] == "secret"
        assert "left in its try 1" in logged[0]["event"]
        assert "is not its own any more" in logged[0]["event"]

    def test_an_address_that_nobody_listens_at_any_more_is_never_used(self):
        server = LedgerServer("127.0.0.1", 0, secret="secret")
        gone = notice(f"127.0.0.1:{server.port}")
        server.close()
        with pytest.raises(
            ServerMissingError, match=r"no ledger to meet at for \d+ s: the address"
        ):
            Waiting(Airflow(("running", gone)), started=0).meet()

    @pytest.mark.parametrize("endpoint", ["10.0.0.1:70000", f"{'x' * 70}:80", "a\0b:80"])
    def test_an_address_that_cannot_be_one_is_waited_out(self, endpoint, there):
        waiting = Waiting(Airflow(("running", notice(endpoint)), ("running", there)))
        assert waiting.meet().rdzv_endpoint == there.endpoint

    def test_a_node_0_that_does_not_come_in_time_is_an_error_that_no_launch_at_once_can_mend(self):
        with pytest.raises(ServerMissingError, match=r"for \d+ s: node 0 is queued") as caught:
            Waiting(Airflow(("queued", None)), absent=0).meet()
        assert not caught.value.retryable

    def test_a_node_0_that_has_started_is_waited_for_until_a_start_takes_too_long(self):
        waiting = Waiting(Airflow(("running", None)), absent=0, stop_after=3)
        with pytest.raises(StoppedError, match="has not said yet where it serves"):
            waiting.meet()
        assert len(waiting.slept) == 3
        with pytest.raises(ServerMissingError, match="has not said yet where it serves"):
            Waiting(Airflow(("running", None)), absent=0, started=0).meet()

    @pytest.mark.parametrize(
        ("look", "why"),
        [
            (("away", None), "AirflowRuntimeError: API_SERVER_ERROR"),
            (("running", ConnectionError("no bucket")), "ConnectionError: no bucket"),
        ],
    )
    def test_an_airflow_that_does_not_answer_does_not_end_the_wait(self, there, look, why):
        with structlog.testing.capture_logs() as logged:
            Waiting(Airflow(look, ("running", there)), absent=0).meet()
        assert f"Airflow does not say how node 0 is: {why}" in logged[0]["event"]

    def test_a_stop_ends_the_wait(self):
        waiting = Waiting(Airflow(("queued", None)), stop_after=3)
        with pytest.raises(StoppedError, match="node 0 is queued"):
            waiting.meet()
        assert len(waiting.slept) == 3

    def test_it_looks_less_and_less_often(self):
        waiting = Waiting(Airflow(("queued", None)), stop_after=6)
        with pytest.raises(StoppedError):
            waiting.meet()
        assert waiting.slept == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]

    def test_a_node_0_that_can_never_come_fails_the_node_for_good(self):
        with pytest.raises(AirflowFailException, match="node 0, which serves the job's ledger, is"):
            Waiting(Airflow(("running", None), ("failed", None))).meet()

    def test_a_job_that_succeeded_meanwhile_does_not_need_it(self):
        with pytest.raises(NotNeededError, match="succeeded without this node, on node 0"):
            Waiting(Airflow(("running", None), ("success", DONE))).meet()


class TestLost:
    def test_the_try_of_node_0_that_it_met_is_not_over_while_airflow_says_that_it_runs(self, there):
        waiting = Waiting(Airflow(("running", there)))
        waiting.meet()
        assert waiting.lost() is None

    @pytest.mark.parametrize("state", ["up_for_retry", "queued", "failed", None])
    def test_it_is_over_when_airflow_says_that_it_does_not_run(self, there, state):
        waiting = Waiting(Airflow(("running", there), (state, there)))
        waiting.meet()
        waiting.airflow.go_on()
        assert waiting.lost() == (
            f"node 0, which served the job's ledger at {there.endpoint}, is "
            f"{state or 'not scheduled'} now"
        )

    @pytest.mark.parametrize(
        "now", [None, notice(secret="another"), notice(try_number=2, secret="another")]
    )
    def test_it_is_over_when_another_launch_of_node_0_runs(self, there, now):
        waiting = Waiting(Airflow(("running", there), ("running", now)))
        waiting.meet()
        waiting.airflow.go_on()
        assert "runs again, and that ledger is over" in waiting.lost()

    def test_after_its_success_the_node_will_soon_learn_that_the_job_succeeded(self, there):
        waiting = Waiting(Airflow(("running", there), ("success", DONE)))
        waiting.meet()
        waiting.airflow.go_on()
        assert waiting.lost() is None

    def test_a_node_that_has_met_nobody_yet_has_lost_nobody(self):
        assert Waiting(Airflow(("queued", None))).lost() is None
