"""Reads facts for the preflight: from Airflow's configuration, the task's context and the machine.

``preflight`` logs what was found. It never fails a task: a fact that cannot be read is unknown, and
a line at level debug says so. It takes milliseconds; a name that does not resolve takes up to a
second. Airflow is imported inside functions.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider.gang.served_ledger import is_served, own_address
from airflow_provider.preflight.findings import Facts, Heartbeats, Severity, executor_of, findings
from llutil.backends.table import BACKENDS
from llutil.errors import ConfigError

if TYPE_CHECKING:
    from airflow_provider.gang.node import GangNode
    from llutil.launcher.config import LaunchConfig

__all__ = ["preflight"]

T = TypeVar("T")

_RESOLVE_TIMEOUT = 1.0
"""How long a resolver has to answer, in seconds."""
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
    executor = known("the executor", lambda: _executor(task), None)
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


def _executor(task: Any) -> str:
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


def _address_problems(config: LaunchConfig, executor: str | None) -> list[str]:
    """The problems with the address at which the other nodes find this one."""
    if config.local_addr:
        return _local_addr_problems(config.local_addr)
    if is_served(config):
        try:
            own = _ask_resolver(own_address)
        except ConfigError as error:
            return [str(error)]
        return _loopback_problems(own, executor, "[core] execution_api_server_url")
    backend = BACKENDS[config.rdzv_backend]
    if not backend.has_ledger:
        name = _ask_resolver(socket.getfqdn)
        if _first_resolved([(name, 0)]) is None:
            return [
                f"this host's name {name!r} does not resolve, and the other nodes are told it; "
                "give local_addr, or let the name resolve on every host"
            ]
        return []
    found = _first_resolved(
        [(one.host, one.port) for one in backend.endpoints(config.rdzv_endpoint)]
    )
    if found is None:
        return [
            f"no host of rdzv_endpoint {config.rdzv_endpoint!r} resolves here: this node cannot "
            "reach the rendezvous"
        ]
    family, address = found
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing: connect(2)
        own = str(probe.getsockname()[0])
    return _loopback_problems(own, executor, "rdzv_endpoint")


def _loopback_problems(own: str, executor: str | None, option: str) -> list[str]:
    """The problems with the address ``own``, to which the route to ``option`` has led."""
    if executor != "LocalExecutor" and (own.startswith("127.") or own == "::1"):
        return [
            f"this node's address for the others is {own}, where no other host finds it; give "
            f"{option} by an address that all hosts share, or local_addr"
        ]
    return []


def _local_addr_problems(given: str) -> list[str]:
    """The problems with ``local_addr``, which is ``given``."""
    found = _first_resolved([(given, 0)])
    if found is None:
        return [
            f"local_addr {given!r} does not resolve here, and probably nowhere: the other nodes "
            "cannot find this one; give an address of this host"
        ]
    family, address = found
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return [
            f"local_addr {given!r} is not an address of this host: unless something forwards it, "
            "the other nodes cannot reach this one"
        ]
    return []


def _first_resolved(places: Sequence[tuple[str, int]]) -> tuple[socket.AddressFamily, Any] | None:
    """The family and the address of the first host and port of ``places`` that resolves.

    :raises TimeoutError: the resolver has not answered in time.
    """

    def ask() -> tuple[socket.AddressFamily, Any] | None:
        for host, port in places:
            with suppress(OSError, UnicodeError):
                family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
                    0
                ]
                return family, address
        return None

    return _ask_resolver(ask)


def _ask_resolver(ask: Callable[[], T]) -> T:
    """What ``ask`` returns; it asks a resolver in a thread.

    A resolver cannot be interrupted, and may take many seconds if the DNS is away.

    :raises TimeoutError: it takes too long.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001 - the edge of the thread
            answer.set_exception(error)

    threading.Thread(target=run, name="preflight-name", daemon=True).start()
    try:
        return answer.result(timeout=_RESOLVE_TIMEOUT)
    except TimeoutError:
        raise TimeoutError(f"no name was resolved within {_RESOLVE_TIMEOUT:g} s") from None
