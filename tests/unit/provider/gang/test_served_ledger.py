"""A gang whose first node hosts: what its siblings do until it does, and what it tells them."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
import structlog
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider.gang.ledger_notice import NOTICE, Notice
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.reschedule import SlotTimeout
from airflow_provider.gang.served_ledger import (
    Guest,
    Host,
    HostMissingError,
    NotNeededError,
    hosted_place,
    is_hosted,
    own_address,
)
from airflow_provider.gang.siblings import (
    GangDone,
    GangHopeless,
    GangOpen,
    GangView,
    absent_nodes,
    describe_absent,
    outlook,
)
from airflow_provider.gang.success_note import NOTE, SuccessNote
from llutil.errors import ConfigError, StoppedError
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.launcher.run_id import TaskKey
from llutil.rendezvous.hosted.store_handshake import Door
from llutil.system.addresses import machine_id

TOKEN = "0@2026"
HERE = machine_id()


def notice(endpoint="10.0.0.1:5000", machine=HERE, **fields):
    given = {"ti_id": "an id", "try_number": 1, "rerun_token": TOKEN, "secret": "secret"} | fields
    return Notice(endpoint=endpoint, machine=machine, **given)


def note(node):
    return SuccessNote(node=node, nodes=3, rerun_token=TOKEN, ranks=(0,), world_size=2)


def view(states, notes=(), host=None):
    return GangView(
        node=1,
        nodes=3,
        min_nodes=2,
        rerun_token=TOKEN,
        states=dict(enumerate(states)),
        notes={number: note(number) for number in notes},
        host=host,
    )


@pytest.mark.parametrize(
    ("states", "notes", "kind"),
    [
        (["running", "running", None], [], GangOpen),
        (["up_for_retry", "running", "running"], [], GangOpen),
        (["failed", "running", "running"], [], GangHopeless),
        (["upstream_failed", "running", "running"], [], GangHopeless),
        # It was an earlier launch's, or is not needed for this node any more.
        (["success", "running", "running"], [], GangHopeless),
        (["success", "running", "running"], [0], GangDone),
    ],
)
def test_nothing_goes_without_the_node_that_hosts(states, notes, kind):
    found = outlook(view(states, notes, host=0))
    assert type(found) is kind
    if kind is GangHopeless:
        assert "node 0, which hosts the job's store, is" in found.why
        assert "Clear the whole task" in found.why


def test_the_node_that_hosts_is_missed_also_if_the_others_are_enough():
    states = ["queued", "running", "running"]
    assert absent_nodes(view(states)) is None
    absent = absent_nodes(view(states, host=0))
    assert absent == {0: "queued"}
    assert describe_absent(view(states, host=0), absent, "gpu") == (
        "2 nodes are there, but not the one that hosts the job's store; missing: node 0 (queued "
        "in pool 'gpu')"
    )
    found = describe_absent(view(states, host=0), {0: "queued", 2: None}, "gpu")
    assert found.startswith("only 1 of the 2 nodes")


def test_of_a_deployments_defaults_those_count_that_c10d_knows():
    place = hosted_place({"namespace": "n", "timeout": 60.0, "lease_ttl": 5.0})
    assert place["rdzv_configs"] == {"timeout": 60.0}
    config = LaunchConfig(2, 2, 1, **place)
    assert problems_of(config) == []
    assert is_hosted(config)
    assert not is_hosted(replace(config, rdzv_endpoint="127.0.0.1:0"))


@pytest.mark.parametrize(
    "setting",
    ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "AIRFLOW__API__BASE_URL"],
)
def test_the_own_address_is_the_one_on_the_route_to_airflow(monkeypatch, setting):
    monkeypatch.setenv(setting, "http://127.0.0.1:8080/execution/")
    assert own_address() == "127.0.0.1"


def test_no_route_to_airflow_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://nowhere.invalid:1/")
    with pytest.raises(ConfigError, match=r"'nowhere\.invalid'.*give local_addr"):
        own_address()


class Airflow:
    """What a task asks of Airflow: the states of node 0, one a look, and what it has pushed by
    then.
    """

    def __init__(self, *looks):
        self.looks = list(looks)
        self.pushed = {}
        self.dag_id, self.run_id, self.id, self.try_number = "d", "r", uuid.uuid4(), 3

    def get_task_states(self, **_):
        state = self.looks[0][0]
        if state == "away":
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        return {"r": {"t_0": state, "t_1": "running"}}

    def xcom_pull(self, task_ids, key):
        assert task_ids == "t"
        found = self.looks[0][1]
        if key == NOTE:
            return [found.to_json()] if isinstance(found, SuccessNote) else []
        assert key == NOTICE
        return found.to_json() if isinstance(found, Notice) else []

    def xcom_push(self, key, value):
        self.pushed[key] = value


CONFIG = LaunchConfig(2, 2, 1, **hosted_place({"timeout": 60.0}))


class TestGuest:
    @pytest.fixture
    def door(self):
        made = Door("127.0.0.1", "secret", 4711)
        yield made
        made.close()

    def guest(self, airflow, absent=60.0, started=60.0, stop_after=100):
        """Each sleep is a step to the next look; nobody really sleeps."""
        slept = []

        def sleep(seconds):
            slept.append(seconds)
            if len(airflow.looks) > 1:
                airflow.looks.pop(0)

        self.slept = slept
        return Guest(
            GangNode(TaskKey("d", "t", "r", 1), 2, 2, TOKEN),
            airflow,
            structlog.get_logger("t"),
            timeout=SlotTimeout(absent=absent, started=started),
            sleep=sleep,
            stopped=lambda: len(slept) >= stop_after,
            draw=lambda: 0.5,
        )

    def test_it_meets_where_the_running_host_says_and_answers(self, door):
        there = notice(f"127.0.0.1:{door.port}")
        airflow = Airflow(("queued", there), ("running", None), ("running", there))
        config = self.guest(airflow).meet(CONFIG)
        assert config.rdzv_endpoint == there.endpoint
        assert config.rdzv_configs == {"timeout": 60.0, "is_host": False, "door": "secret"}
        assert self.slept == [0.5, 1.0]
        assert problems_of(config) == []

    def test_an_address_that_is_not_the_hosts_any_more_is_never_used(self, door):
        stale = notice(f"127.0.0.1:{door.port}", secret="of an earlier try")
        fresh = notice(f"127.0.0.1:{door.port}", try_number=2)
        airflow = Airflow(("running", stale), ("running", fresh))
        with structlog.testing.capture_logs() as logged:
            config = self.guest(airflow).meet(CONFIG)
        assert config.rdzv_configs["door"] == "secret"
        assert "left in its try 1" in logged[0]["event"]
        assert "is not its own any more" in logged[0]["event"]

    def test_an_address_that_nobody_listens_at_any_more_is_never_used(self, door):
        gone = notice(f"127.0.0.1:{door.port}")
        door.close()
        with pytest.raises(HostMissingError, match="no store to meet at for 0 s: the address that"):
            self.guest(Airflow(("running", gone)), started=0).meet(CONFIG)

    def test_a_host_that_does_not_come_in_time_is_an_error_that_no_launch_at_once_can_mend(self):
        with pytest.raises(HostMissingError, match=r"for 0 s: node 0 is queued") as caught:
            self.guest(Airflow(("queued", None)), absent=0).meet(CONFIG)
        assert not caught.value.retryable

    def test_a_host_that_has_started_is_waited_for_until_a_start_takes_too_long(self):
        with pytest.raises(StoppedError, match="has not said yet where it hosts"):
            self.guest(Airflow(("running", None)), absent=0, stop_after=3).meet(CONFIG)
        assert len(self.slept) == 3
        with pytest.raises(HostMissingError, match="has not said yet where it hosts"):
            self.guest(Airflow(("running", None)), absent=0, started=0).meet(CONFIG)

    def test_an_api_server_that_is_away_does_not_end_the_wait(self, door):
        there = notice(f"127.0.0.1:{door.port}")
        airflow = Airflow(("away", None), ("running", there))
        with structlog.testing.capture_logs() as logged:
            self.guest(airflow, absent=0).meet(CONFIG)
        assert "Airflow does not say how node 0 is" in logged[0]["event"]

    def test_a_stop_ends_the_wait(self):
        with pytest.raises(StoppedError, match="node 0 is queued"):
            self.guest(Airflow(("queued", None)), stop_after=3).meet(CONFIG)
        assert len(self.slept) == 3

    def test_it_looks_less_and_less_often(self):
        with pytest.raises(StoppedError):
            self.guest(Airflow(("queued", None)), stop_after=6).meet(CONFIG)
        assert self.slept == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]

    def test_a_host_that_can_never_come_fails_the_node_for_good(self):
        with pytest.raises(AirflowFailException, match="node 0, which hosts the job's store, is"):
            self.guest(Airflow(("running", None), ("failed", None))).meet(CONFIG)

    def test_a_job_that_succeeded_meanwhile_does_not_need_it(self):
        done = SuccessNote(node=0, nodes=2, rerun_token=TOKEN, ranks=(0,), world_size=1)
        with pytest.raises(NotNeededError, match="succeeded without this node, on node 0"):
            self.guest(Airflow(("running", None), ("success", done))).meet(CONFIG)


class TestHost:
    def host(self, airflow):
        return Host(
            GangNode(TaskKey("d", "t", "r", 0), 2, 2, TOKEN), airflow, structlog.get_logger("t")
        )

    def test_each_launch_has_a_secret_of_its_own_and_its_notice_has_it_too(self):
        airflow = Airflow(("running", None))
        host = self.host(airflow)
        secrets = []
        for port in (1, 2):
            config = host.meet(replace(CONFIG, local_addr="10.0.0.1"))
            assert config.rdzv_endpoint == "10.0.0.1:0"
            assert config.rdzv_configs["is_host"] is True
            assert problems_of(config) == []
            host.publish(f"10.0.0.1:{port}")
            described = Notice.of(airflow.pushed[NOTICE])
            assert described is not None
            assert described.secret == config.rdzv_configs["door"]
            assert (described.ti_id, described.try_number, described.rerun_token) == (
                str(airflow.id),
                3,
                TOKEN,
            )
            assert (described.endpoint, described.machine) == (f"10.0.0.1:{port}", HERE)
            secrets.append(described.secret)
        assert len(set(secrets)) == 2

    def test_an_address_of_ipv6_is_bracketed(self):
        config = self.host(Airflow()).meet(replace(CONFIG, local_addr="fe80::1"))
        assert config.rdzv_endpoint == "[fe80::1]:0"
        assert problems_of(config) == []
