"""Where nodes meet: the DAG file comes first, then the connection, then the deployment's
defaults.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider.execution.task_run import TaskRun
from airflow_provider.get_provider_info import get_provider_info
from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.parameters.rendezvous import (
    RendezvousDefaults,
    RendezvousSettings,
    deployment_defaults,
    resolve_rendezvous,
)
from llutil.errors import ConfigError

CONFIGURED = RendezvousDefaults(conn_id="", configs={"namespace": "all", "timeout": 900.0})
PLACE = RendezvousSettings(
    "etcd", "e0:1", {"namespace": "conn", "user": "ann", "password": "hidden"}
)


def connect(conn_id):
    assert conn_id in {"c", "default"}
    return PLACE


def meet(several=True, defaults=CONFIGURED, without_store=None, **values):
    return resolve_rendezvous(
        values,
        several=several,
        connect=connect,
        without_store=without_store,
        defaults=lambda: defaults,
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"several": False}, {}),
        ({"rdzv_backend": "c10d", "rdzv_endpoint": "h:1"}, {}),
        (
            {"rdzv_endpoint": "h:1"},
            {"rdzv_endpoint": "h:1", "rdzv_configs": {"namespace": "all", "timeout": 900.0}},
        ),
        (
            {"rdzv_conn_id": "c"},
            {"rdzv_endpoint": "e0:1", "rdzv_configs": {"timeout": 900.0, **PLACE.configs}},
        ),
        (
            {"rdzv_conn_id": "c", "several": False},
            {"rdzv_endpoint": "e0:1", "rdzv_configs": {"timeout": 900.0, **PLACE.configs}},
        ),
        (
            {"rdzv_conn_id": "c", "rdzv_configs": {"namespace": "mine", "lease_ttl": 5}},
            {
                "rdzv_endpoint": "e0:1",
                "rdzv_configs": {
                    "timeout": 900.0,
                    **PLACE.configs,
                    "namespace": "mine",
                    "lease_ttl": 5,
                },
            },
        ),
        (
            {"defaults": RendezvousDefaults(conn_id="default", configs={})},
            {"rdzv_endpoint": "e0:1", "rdzv_configs": dict(PLACE.configs)},
        ),
        (
            {"defaults": RendezvousDefaults(conn_id="default", configs={}), "rdzv_endpoint": "h:1"},
            {"rdzv_endpoint": "h:1", "rdzv_configs": {}},
        ),
    ],
)
def test_what_is_nearer_to_the_job_counts(values, expected):
    assert meet(**values) == ({"rdzv_backend": "etcd"} | expected if expected else {})


def by_themselves(configs):
    return {
        "rdzv_backend": "served",
        "rdzv_endpoint": "x:0",
        "rdzv_configs": {"kept": len(configs)},
    }


SERVED = {"rdzv_backend": "served", "rdzv_endpoint": "x:0", "rdzv_configs": {"kept": 2}}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, SERVED),
        ({"rdzv_backend": "etcd"}, SERVED),  # that is just the default
        ({"rdzv_backend": "served"}, SERVED),
        ({"rdzv_configs": {"timeout": 5}}, SERVED | {"rdzv_configs": {"kept": 2, "timeout": 5}}),
        ({"rdzv_configs": "nonsense"}, SERVED | {"rdzv_configs": "nonsense"}),
        ({"several": False}, {}),
        ({"rdzv_backend": "served", "several": False}, {}),
        ({"rdzv_backend": "served", "rdzv_endpoint": "h:1"}, {}),
        ({"rdzv_backend": "c10d"}, {}),
        ({"rdzv_backend": "c10d", "rdzv_endpoint": "h:1"}, {}),
        ({"rdzv_backend": "static"}, {}),
    ],
)
def test_who_can_serve_a_ledger_does_so_if_nothing_says_where_there_is_one(values, expected):
    assert meet(without_store=by_themselves, **values) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"rdzv_conn_id": "c"},
        {"rdzv_endpoint": "h:1"},
        {"defaults": RendezvousDefaults(conn_id="default", configs={})},
        {"rdzv_backend": "zeus-adapter"},
    ],
)
def test_who_says_where_nodes_meet_meets_there(values):
    assert meet(without_store=by_themselves, **values) == meet(**values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"rdzv_conn_id": "c", "rdzv_endpoint": "h:1"}, "give one of them"),
        ({"rdzv_conn_id": "c", "rdzv_backend": "c10d"}, "which rdzv_backend 'c10d' cannot use"),
        ({"rdzv_conn_id": "c", "rdzv_backend": "zeus-adapter"}, "connection 'c' leads to 'etcd'"),
    ],
)
def test_contradictions_are_told(values, told):
    with pytest.raises(ConfigError, match=told):
        meet(**values)


DEFAULTS = {
    "timeout": 900,
    "last_call_timeout": 30,
    "lease_ttl": 10,
    "growth_timeout": 60,
    "namespace": "llutil",
}


def test_the_deployments_defaults_are_the_launchers_own_unless_somebody_changes_them():
    assert deployment_defaults() == RendezvousDefaults(conn_id="", configs=DEFAULTS)


def test_a_deployment_has_its_own_namespace(monkeypatch):
    monkeypatch.setenv("AIRFLOW__ELASTIC_LAUNCH__NAMESPACE", "prod")
    monkeypatch.setenv("AIRFLOW__ELASTIC_LAUNCH__RDZV_CONN_ID", "etcd_prod")
    found = deployment_defaults()
    assert (found.conn_id, found.configs["namespace"]) == ("etcd_prod", "prod")


def test_a_default_that_is_no_number_is_told(monkeypatch):
    monkeypatch.setenv("AIRFLOW__ELASTIC_LAUNCH__TIMEOUT", "soon")
    with pytest.raises(ConfigError, match=r"\[elastic_launch\] has 'timeout': 'soon'"):
        deployment_defaults()


def test_every_option_of_the_section_is_one_that_is_read():
    options = get_provider_info()["config"]["elastic_launch"]["options"]
    assert options.keys() == {"keep_agents_ready", "rdzv_conn_id", "results_path", *DEFAULTS}


def test_a_dag_file_with_several_nodes_says_where_they_meet_or_the_deployment_does(monkeypatch):
    with pytest.raises(ConfigError, match=r"rdzv_endpoint is empty.*or rdzv_conn_id"):
        ElasticLaunchOperator(task_id="t", entrypoint="true", rdzv_id="x", nnodes=2)
    ElasticLaunchOperator(task_id="t", entrypoint="true", rdzv_id="x", nnodes=2, rdzv_conn_id="c")
    monkeypatch.setenv("AIRFLOW__ELASTIC_LAUNCH__RDZV_CONN_ID", "c")
    ElasticLaunchOperator(task_id="t", entrypoint="true", rdzv_id="x", nnodes=2)


class TestTask:
    """From the operator to what an agent would be told."""

    @pytest.fixture(autouse=True)
    def _connection(self, monkeypatch):
        monkeypatch.setenv(
            "AIRFLOW_CONN_C",
            '{"conn_type": "etcd", "host": "e0", "login": "ann", "password": "hidden-word"}',
        )

    @pytest.fixture
    def context(self, tmp_path):
        ti = SimpleNamespace(
            dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, xcom_push=None
        )
        return {"dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py")), "ti": ti, "run_id": "r"}

    def operator(self, **parameters):
        with DAG("d"):
            return ElasticLaunchOperator(
                task_id="t",
                entrypoint="true",
                rdzv_id="x",
                nnodes=2,
                **{"rdzv_conn_id": "c"} | parameters,
            )

    def test_the_agent_is_told_what_the_connection_says(self, context):
        task = self.operator(rdzv_configs={"last_call_timeout": "1.5"})
        config = TaskRun(task, context, on_running=lambda _: None).launch().config
        assert config.rdzv_backend == "etcd"
        assert config.rdzv_endpoint == "e0:2379"
        assert config.rendezvous_options() == {
            "namespace": "llutil",
            "timeout": 900.0,
            "last_call_timeout": 1.5,
            "lease_ttl": 10.0,
            "growth_timeout": 60.0,
            "user": "ann",
            "password": "hidden-word",
        }

    def test_nobody_else_is_told(self, context, caplog):
        task = self.operator()
        caplog.set_level("DEBUG")
        launch = TaskRun(task, context, on_running=lambda _: None).launch()
        assert launch.config.rdzv_configs["password"] == "hidden-word"
        shown = [getattr(task, name) for name in task.template_fields]
        stored = json.dumps(DagSerialization.to_dict(task.dag))
        for text in (repr(shown), stored, caplog.text, repr(vars(task))):
            assert "hidden-word" not in text

    def test_a_connection_that_is_missing_fails_the_task_for_good(self, context):
        with pytest.raises(ConfigError, match="no connection of that name"):
            self.operator(rdzv_conn_id="nobody").execute(context)
