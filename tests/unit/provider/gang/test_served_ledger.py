"""A gang whose node 0 serves the ledger: where that is, and what node 0 tells the others."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
import structlog
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider.gang.ledger_notice import NOTICE, LedgerNotice
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.served_ledger import ServingNode, is_served, own_address, served_place
from llutil.errors import InfrastructureError
from llutil.launcher.config import LaunchConfig
from llutil.launcher.config_checks import problems_of
from llutil.launcher.run_id import TaskKey
from llutil.system.addresses import machine_id

TOKEN = "0@2026"
CONFIG = LaunchConfig(2, 2, 1, **served_place({"timeout": 60.0}))


def test_of_a_deployments_defaults_those_count_that_a_served_ledger_has():
    place = served_place({"namespace": "n", "timeout": 60.0, "lease_ttl": 5.0})
    assert place["rdzv_configs"] == {"timeout": 60.0, "lease_ttl": 5.0}
    config = LaunchConfig(2, 2, 1, **place)
    assert problems_of(config) == []
    assert is_served(config)
    assert not is_served(replace(config, rdzv_endpoint="127.0.0.1:0"))


@pytest.mark.parametrize(
    "setting",
    ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "AIRFLOW__API__BASE_URL"],
)
def test_the_own_address_is_the_one_on_the_route_to_airflow(monkeypatch, setting):
    monkeypatch.setenv(setting, "http://127.0.0.1:8080/execution/")
    assert own_address() == "127.0.0.1"


def test_no_route_to_airflow_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://nowhere.invalid:1/")
    with pytest.raises(InfrastructureError, match=r"'nowhere\.invalid'.*give local_addr"):
        own_address()


class Instance:
    """The task instance of node 0, which takes what is pushed."""

    def __init__(self):
        self.pushed = {}
        self.id, self.try_number = uuid.uuid4(), 3

    def xcom_push(self, key, value):
        self.pushed[key] = value


class TestServingNode:
    def serving(self, ti):
        return ServingNode(
            GangNode(TaskKey("d", "t", "r", 0), 2, 2, TOKEN), ti, structlog.get_logger("t")
        )

    def test_each_launch_has_a_secret_of_its_own_and_its_notice_has_it_too(self):
        ti = Instance()
        serving = self.serving(ti)
        secrets = []
        for port in (1, 2):
            config = serving.meet(replace(CONFIG, local_addr="10.0.0.1"))
            assert config.rdzv_endpoint == "10.0.0.1:0"
            assert config.rdzv_configs["serves"] is True
            assert problems_of(config) == []
            serving.publish(f"10.0.0.1:{port}")
            described = LedgerNotice.of(ti.pushed[NOTICE])
            assert described is not None
            assert described.secret == config.rdzv_configs["secret"]
            assert (described.ti_id, described.try_number, described.rerun_token) == (
                str(ti.id),
                3,
                TOKEN,
            )
            assert (described.endpoint, described.machine) == (f"10.0.0.1:{port}", machine_id())
            secrets.append(described.secret)
        assert len(set(secrets)) == 2

    @pytest.mark.parametrize(
        ("error", "why"),
        [
            (
                AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR)),
                "API_SERVER_ERROR",
            ),
            (ConnectionError("no bucket"), "ConnectionError: no bucket"),
        ],
    )
    def test_a_notice_that_airflow_does_not_take_is_a_fault_of_the_infrastructure(self, error, why):
        class Away(Instance):
            def xcom_push(self, key, value):
                raise error

        serving = self.serving(Away())
        serving.meet(replace(CONFIG, local_addr="10.0.0.1"))
        with pytest.raises(InfrastructureError, match=f"'{NOTICE}'.*{why}"):
            serving.publish("10.0.0.1:1")

    def test_an_address_of_ipv6_is_bracketed(self):
        config = self.serving(Instance()).meet(replace(CONFIG, local_addr="fe80::1"))
        assert config.rdzv_endpoint == "[fe80::1]:0"
        assert problems_of(config) == []
