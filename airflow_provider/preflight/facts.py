"""Reads facts for the preflight: from Airflow's configuration, the task's context and the machine.

``preflight`` logs what was found. It never fails a task: a fact that cannot be read is unknown, and
a line at level debug says so. It takes milliseconds; a name that does not resolve takes up to a
second. Airflow is imported inside functions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider.gang.served_ledger import is_served, own_address
from airflow_provider.preflight.findings import Facts, Heartbeats, Severity, executor_of, findings
from llutil.backends.table import BACKENDS
from llutil.errors import InfrastructureError
from llutil.preflight.addresses import address_problems, ask_resolver, loopback_problems

if TYPE_CHECKING:
    from airflow_provider.gang.node import GangNode
    from llutil.launcher.config import LaunchConfig

__all__ = ["executor_of_task", "preflight"]

T = TypeVar("T")

_DEFAULT_VISIBILITY_TIMEOUT = 86400.0
"""The ``visibility_timeout`` that Airflow's Celery provider sets (3.26), in seconds."""
_REDELIVERING_BROKERS = ("redis://", "rediss://", "sqs://", "sentinel://")
"""Brokers that deliver a task again after the visibility timeout."""


def preflight(
    task: Any,
    config: LaunchConfig,
    node: GangNode | None,
    context: Mapping[str, Any],
    log: logging.Logger,
    first_time: Callable[[str], bool],
) -> None:
    """Log what could ruin a long run of ``config``.

    ``node`` is the node of a gang that runs it; None for a job that is not a gang. ``first_time``
    says whether a text was not said on this host before.
    """

    def known(what: str, read: Callable[[], T], default: T) -> T:
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - the job may run in spite of it
            log.debug(
                "preflight: %s could not be checked: %s: %s", what, type(error).__name__, error
            )
            return default

    several = config.max_nodes > 1
    executor = known("the executor", lambda: executor_of_task(task), None)
    longest = task.execution_timeout
    facts = Facts(
        executor=executor,
        grace_period=config.shutdown_timeout,
        pod_grace=known("the pod", lambda: _pod_grace(task.executor_config), None),
        execution_timeout=None if longest is None else longest.total_seconds(),
        rendezvous_timeout=known("the timeout", lambda: _rendezvous_timeout(config), None),
        visibility=known("Celery's broker", _visibility, None)
        if executor == "CeleryExecutor"
        else None,
        heartbeats=known("heartbeats", _heartbeats, None),
        forgets_folder=known("the state's end", lambda: _forgets_folder(task, config, node), False),
        addresses=known("this node's address", lambda: _address_problems(config, executor), ())
        if several
        else (),
        node=None if node is None else node.number,
        min_nodes=config.min_nodes,
        siblings=None
        if node is None
        else known("the siblings", lambda: node.states(context["ti"]), None),
        pool=str(task.pool),
    )
    for finding in findings(facts):
        if finding.of_deployment and not first_time(finding.text):
            continue
        level = logging.WARNING if finding.severity is Severity.WARNING else logging.INFO
        log.log(level, "preflight: %s", finding.text)


def _conf() -> Any:
    from airflow.sdk.configuration import conf

    return conf


def executor_of_task(task: Any) -> str:
    """The class name of the executor that runs ``task``."""
    # KubernetesExecutor sets this variable in its pods (provider 10.25).
    pod = "AIRFLOW_IS_K8S_EXECUTOR_POD" in os.environ
    return executor_of(task.executor, str(_conf().get("core", "executor")), pod)


def _pod_grace(executor_config: Mapping[str, Any] | None) -> float | None:
    pod = (executor_config or {}).get("pod_override")
    grace = getattr(getattr(pod, "spec", None), "termination_grace_period_seconds", None)
    return None if grace is None else float(grace)


def _rendezvous_timeout(config: LaunchConfig) -> float | None:
    if config.max_nodes == 1:
        return None
    return float(config.rendezvous_options()["timeout"])


def _visibility() -> float | None:
    conf = _conf()
    given = conf.get("celery_broker_transport_options", "visibility_timeout", fallback="")
    if given:
        return float(given)
    broker = str(conf.get("celery", "broker_url", fallback=""))
    return _DEFAULT_VISIBILITY_TIMEOUT if broker.startswith(_REDELIVERING_BROKERS) else None


def _heartbeats() -> Heartbeats:
    conf = _conf()
    usual = _heartbeats_by(conf.get_default_value, float("inf"))
    return _heartbeats_by(conf.get, usual.fatal_outage())


def _heartbeats_by(get: Callable[[str, str], Any], usual: float) -> Heartbeats:
    return Heartbeats(
        failures=int(get("workers", "max_failed_heartbeats")),
        interval=float(get("workers", "min_heartbeat_interval")),
        attempts=int(get("workers", "execution_api_retries")),
        wait=float(get("workers", "execution_api_retry_wait_min")),
        timeout=float(get("scheduler", "task_instance_heartbeat_timeout")),
        usual=usual,
    )


def _forgets_folder(task: Any, config: LaunchConfig, node: GangNode | None) -> bool:
    if config.checkpoint_path is None or config.checkpoint_job:
        return False
    # Tasks that are nodes of one job by an id of their own have a folder of that name.
    if node is None and config.max_nodes > 1 and task.rdzv_id:
        return False
    return bool(_conf().getboolean("state_store", "clear_on_success"))


def _address_problems(config: LaunchConfig, executor: str | None) -> list[str]:
    """The problems with the address at which the other nodes find this one."""
    one_host = executor == "LocalExecutor"
    if config.local_addr or not is_served(config):
        backend = BACKENDS[config.rdzv_backend]
        return address_problems(config.local_addr, backend, config.rdzv_endpoint, one_host=one_host)
    try:
        own = ask_resolver(own_address)
    except InfrastructureError as error:
        return [str(error)]
    return loopback_problems(own, "[core] execution_api_server_url", one_host=one_host)
