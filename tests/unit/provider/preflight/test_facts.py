"""Where a preflight has its facts from, and that none of them can fail a task."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import threading
from types import SimpleNamespace

import airflow.settings  # noqa: F401 - it takes the loggers' handlers away when it is imported
import pytest

from airflow_provider.gang.served_ledger import served_place
from airflow_provider.preflight.facts import preflight
from llutil.launcher.config import LaunchConfig
from llutil.preflight import addresses


@pytest.fixture
def configured(monkeypatch):
    """Sets options of Airflow's configuration as its variables do."""

    def configure(**options):
        for name, value in options.items():
            monkeypatch.setenv(f"AIRFLOW__{name.upper()}", value)

    monkeypatch.delenv("AIRFLOW_IS_K8S_EXECUTOR_POD", raising=False)
    monkeypatch.setattr(addresses, "_RESOLVE_TIMEOUT", 60.0)
    configure(core__executor="LocalExecutor")
    return configure


@pytest.fixture
def said(configured, caplog):
    """What is logged for a task, by level."""

    def run(
        *, node=None, first_time=lambda _: True, levels=("INFO", "WARNING"), config=None, **task
    ):
        fields = {
            "executor": None,
            "executor_config": {},
            "execution_timeout": None,
            "pool": "default_pool",
            "rdzv_id": None,
        }
        given = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 1} | (config or {})
        caplog.set_level(logging.DEBUG)
        context = {"ti": SimpleNamespace()}
        log = logging.getLogger("preflight")
        operator = SimpleNamespace(**fields | task)
        preflight(operator, LaunchConfig(**given), node, context, log, first_time)
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "preflight" and record.levelname in levels
        ]

    return run


def several(**config):
    return {"max_nodes": 2, "run_id": "r", "rdzv_endpoint": "127.0.0.1:2379"} | config


def test_one_node_on_local_executor_has_nothing_to_be_told(said):
    assert said(levels=("DEBUG", "INFO", "WARNING")) == []


def test_limits_of_heartbeats_are_airflows_and_only_worse_ones_are_named(said, configured):
    configured(workers__max_failed_heartbeats="3")
    assert said() == []
    configured(workers__max_failed_heartbeats="2")
    assert "away for 9 s can end a task, which is less than the 14 s" in said()[0]
    assert "which is 2, to 61 or more" in said()[0]


def test_what_is_wrong_with_the_deployment_is_not_said_to_every_task(said, configured):
    configured(workers__max_failed_heartbeats="1")
    texts = []

    def first_time(text):
        texts.append(text)
        return texts.count(text) == 1

    assert len(said(first_time=first_time)) == 1
    assert len(said(first_time=first_time)) == 1  # the log of both
    assert len(texts) == 2


def test_the_pods_grace_is_read_from_the_tasks_own_pod(said, configured):
    configured(core__executor="CeleryExecutor,KubernetesExecutor")
    pod = SimpleNamespace(spec=SimpleNamespace(termination_grace_period_seconds=10))
    found = said(executor="KubernetesExecutor", executor_config={"pod_override": pod})
    assert "pod_override gives its pod 10 s" in found[0]


def test_a_pod_of_the_executors_is_known_by_its_mark(said, monkeypatch):
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    assert "Kubernetes gives a pod 30 s" in said()[0]


@pytest.mark.parametrize(
    ("broker", "given", "text"),
    [
        ("redis://r", None, "has run for 86400 s"),
        ("sentinel://r", None, "has run for 86400 s"),
        ("redis://r", "7200", "has run for 7200 s"),
        ("amqp://r", None, None),
    ],
)
def test_the_visibility_timeout_is_that_of_the_broker(said, configured, broker, given, text):
    configured(core__executor="CeleryExecutor", celery__broker_url=broker)
    if given is not None:
        configured(celery_broker_transport_options__visibility_timeout=given)
    found = said()
    assert (text is None and found == []) or text in found[0]


def test_an_execution_timeout_is_compared_with_the_rendezvous_own(said):
    config = several(rdzv_configs={"timeout": 120})
    (found,) = said(config=config, execution_timeout=dt.timedelta(seconds=60))
    assert "execution_timeout is 60 s, and nodes may wait 120 s" in found


@pytest.mark.parametrize("cleared", ["True", "False"])
@pytest.mark.parametrize(
    ("config", "rdzv_id", "forgets"),
    [
        pytest.param({}, None, False, id="no checkpoints"),
        pytest.param({"checkpoint_path": "/c"}, None, True, id="one node"),
        pytest.param({"checkpoint_path": "/c"}, "mine", True, id="one node with a name"),
        pytest.param({"checkpoint_path": "/c", "checkpoint_job": "own"}, None, False, id="named"),
        pytest.param({"checkpoint_path": "/c", "max_nodes": 2}, "mine", False, id="shared"),
    ],
)
def test_a_folder_of_checkpoints_that_airflow_forgets_after_success_is_told(
    said, configured, config, rdzv_id, forgets, cleared
):
    configured(state_store__clear_on_success=cleared)
    if "max_nodes" in config:
        config = several(**config)
    found = said(config=config, rdzv_id=rdzv_id)
    assert bool(found) == (forgets and cleared == "True")
    assert all("clear_on_success deletes a task's state" in text for text in found)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"local_addr": "no-such-host.invalid"}, "local_addr 'no-such-host.invalid' does not"),
        ({"local_addr": "192.0.2.1"}, "'192.0.2.1' is not an address of this host"),
        ({"local_addr": "127.0.0.1"}, None),
        (
            {"rdzv_endpoint": "a.invalid:2379,b.invalid:2379"},
            "no host of rdzv_endpoint 'a.invalid:2379,b.invalid:2379' resolves here",
        ),
        ({"rdzv_endpoint": "127.0.0.1:2379,10.0.0.1:2379/jobs"}, None),
        ({"rdzv_endpoint": "[::1]:2379"}, None),
    ],
)
def test_an_address_at_which_nobody_finds_this_node_is_told(said, monkeypatch, config, text):
    if "invalid" in str(config):
        monkeypatch.setattr(socket, "getaddrinfo", refused)
    found = said(config=several(**config))
    assert (text is None and found == []) or text in found[0]


def served(**config):
    return {"min_nodes": 2, "max_nodes": 2, "run_id": "r", **served_place({})} | config


def test_a_gang_whose_node_0_serves_has_an_address_on_the_route_to_airflow(said, configured):
    configured(core__execution_api_server_url="http://127.0.0.1:8080/execution/")
    assert said(config=served()) == []
    configured(core__executor="CeleryExecutor", celery__broker_url="amqp://r")
    (found,) = said(config=served())
    assert "for the others is 127.0.0.1, where no other host finds it; give [core] exec" in found


def test_a_gang_without_a_route_to_airflow_is_told_what_to_give(said, configured, monkeypatch):
    configured(core__execution_api_server_url="http://nowhere.invalid:1/")
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    (found,) = said(config=served())
    assert "no route to Airflow's API server at 'nowhere.invalid'" in found


def refused(*_args, **_options):
    """What a resolver says that knows everything: the tests' machine may have none at all."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_loopback_address_is_told_where_nodes_are_on_several_hosts(said, configured):
    configured(core__executor="CeleryExecutor", celery__broker_url="amqp://r")
    (found,) = said(config=several())
    assert "this node's address for the others is 127.0.0.1" in found


def test_a_host_without_a_name_is_told_where_the_name_is_what_others_get(said, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket, "getfqdn", lambda: "nowhere")
    (found,) = said(config=several(rdzv_backend="c10d"))
    assert "this host's name 'nowhere' does not resolve" in found


def test_a_resolver_that_does_not_answer_costs_little_and_fails_nothing(said, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [over.wait(60)] * 5)
    monkeypatch.setattr(addresses, "_RESOLVE_TIMEOUT", 0.01)
    found = said(config=several(), levels=("DEBUG", "INFO", "WARNING"))
    over.set()
    assert len(found) == 1
    assert "this node's address could not be checked: TimeoutError" in found[0]


def test_what_airflow_does_not_say_is_no_reason_to_fail(said, configured):
    configured(workers__max_failed_heartbeats="many")

    class Mute:
        number = 0

        def states(self, ti):
            raise RuntimeError("the api-server is away")

    found = said(node=Mute(), config=several(), levels=("DEBUG", "INFO", "WARNING"))
    assert len(found) == 2
    assert found[0].startswith("preflight: heartbeats could not be checked: ")
    assert "the siblings could not be checked: RuntimeError: the api-server is away" in found[1]
