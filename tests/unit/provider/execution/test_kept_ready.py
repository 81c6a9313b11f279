"""Where agents are kept ready, and what the log says where they are not."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from airflow_provider.execution import kept_ready
from airflow_provider.execution.kept_ready import seconds_kept_ready

_LOG = logging.getLogger("kept")


@pytest.fixture
def found(monkeypatch, caplog):
    """The seconds, and what was logged, under this configuration."""
    said = set()

    def first_time(text):
        return not (text in said or said.add(text))

    def asked(seconds, executor, *, dag_test=False):
        if seconds is not None:
            monkeypatch.setenv("AIRFLOW__ELASTIC_LAUNCH__KEEP_AGENTS_READY", seconds)
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
        monkeypatch.setattr(kept_ready, "is_dag_test", lambda: dag_test)
        caplog.clear()
        with caplog.at_level(logging.INFO, "kept"):
            kept = seconds_kept_ready(SimpleNamespace(executor=None), _LOG, first_time)
        return kept, [record.getMessage() for record in caplog.records]

    return asked


def test_by_default_none_is(found):
    assert found(None, "LocalExecutor") == (0.0, [])
    assert found("0", "KubernetesExecutor") == (0.0, [])


@pytest.mark.parametrize("executor", ["LocalExecutor", "CeleryExecutor", "EdgeExecutor"])
def test_workers_on_hosts_keep_them_for_so_long(found, executor):
    assert found("900.5", executor) == (900.5, [])


@pytest.mark.parametrize("executor", ["KubernetesExecutor", "AwsEcsExecutor", "my.OwnExecutor"])
def test_containers_of_one_task_keep_none_and_the_log_says_so_once(found, executor):
    name = executor.rpartition(".")[2]
    line = (
        "[elastic_launch] keep_agents_ready is set, but no agents are kept ready: "
        f"{name} may run each task in a container of its own"
    )
    assert found("900", executor) == (0.0, [line])
    assert found("900", executor) == (0.0, [])


def test_a_pod_of_kubernetes_keeps_none_whatever_its_configuration_says(found, monkeypatch):
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    assert found("900", "LocalExecutor")[0] == 0.0


def test_dag_test_keeps_none(found):
    seconds, (line,) = found("900", "LocalExecutor", dag_test=True)
    assert seconds == 0.0
    assert line.endswith("no agents are kept ready: dag.test() runs this task")


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_what_is_no_time_keeps_none_and_fails_no_task(found, text):
    seconds, (line,) = found(text, "LocalExecutor")
    assert seconds == 0.0
    assert line.endswith(f"keep_agents_ready is {text!r}; wanted seconds, 0 for none")
