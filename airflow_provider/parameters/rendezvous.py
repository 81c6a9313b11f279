"""Decides where the nodes of a task's job meet: the DAG file comes first, then its connection, then
``[elastic_launch]``.

``RendezvousSettings`` is what a connection says. It is read when the task runs, and goes to the
agent over their private socket. It is never an attribute of the operator, a template or a log line.
Nothing here connects to anything. Airflow is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider.parameters.shown_value import shown
from llutil.backends.options import read_options
from llutil.backends.table import BACKENDS, DEFAULT, DEPLOYMENT_OPTIONS, SERVED, backend_named
from llutil.errors import ConfigError, Problem

__all__ = [
    "SECTION",
    "RendezvousDefaults",
    "RendezvousSettings",
    "conn_id_problem",
    "deployment_defaults",
    "resolve_rendezvous",
]

SECTION = "elastic_launch"
"""The section of Airflow's configuration with this provider's defaults."""


@dataclass(frozen=True, slots=True)
class RendezvousSettings:
    """A rendezvous backend, its endpoint and its options. The options may hold a password, so
    ``repr`` leaves them out.
    """

    backend: str
    endpoint: str
    configs: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousDefaults:
    """The defaults in ``[elastic_launch]``: a connection for jobs of several nodes, and options for
    backends with a ledger.
    """

    conn_id: str = ""
    configs: Mapping[str, Any] = field(default_factory=dict)


def deployment_defaults() -> RendezvousDefaults:
    """The defaults of this deployment.

    :raises ConfigError: a value is not of its option's kind; all problems are listed.
    """
    from airflow.sdk.configuration import conf

    texts = {
        name: str(conf.get(SECTION, name, fallback="") or "").strip()
        for name in ("rdzv_conn_id", *DEPLOYMENT_OPTIONS)
    }
    conn_id = texts.pop("rdzv_conn_id")
    configs, problems = read_options(DEPLOYMENT_OPTIONS.values(), texts, f"[{SECTION}]", "Airflow")
    if problems:
        raise ConfigError(problems)
    return RendezvousDefaults(conn_id=conn_id, configs=configs)


def conn_id_problem(given: object) -> Problem:
    """The problem of a ``rdzv_conn_id`` that is no text."""
    return Problem("rdzv_conn_id", f"is {shown(given)}; wanted the name of an Airflow connection")


def resolve_rendezvous(
    values: Mapping[str, Any],
    *,
    several: bool,
    connect: Callable[[str], RendezvousSettings],
    without_store: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    defaults: Callable[[], RendezvousDefaults] = deployment_defaults,
) -> dict[str, Any]:
    """The parameters ``rdzv_*`` that replace those in ``values``.

    ``several``: the job may have several nodes. ``connect`` returns the settings of a connection,
    by its name. ``without_store`` takes the deployment's default ``rdzv_configs`` and returns the
    parameters of a job one of whose nodes serves the ledger; None if none can. Options in the
    DAG file's ``rdzv_configs`` override those of the connection, and these override
    ``[elastic_launch]``.

    :raises ConfigError: they contradict each other, or the connection cannot be used.
    """
    name = values.get("rdzv_backend") or DEFAULT.name
    backend = backend_named(name)
    endpoint = values.get("rdzv_endpoint") or ""
    conn_id = values.get("rdzv_conn_id")
    if conn_id is not None and not isinstance(conn_id, str):
        raise ConfigError(conn_id_problem(conn_id))
    if conn_id and endpoint:
        raise ConfigError(
            f"rdzv_conn_id is {shown(conn_id)} and rdzv_endpoint is {shown(endpoint)}; give one of "
            "them"
        )
    if backend is None or not backend.connection_type:
        if conn_id:
            able = " or ".join(repr(one.name) for one in BACKENDS.values() if one.connection_type)
            raise ConfigError(
                f"rdzv_conn_id is {shown(conn_id)}, which rdzv_backend {name!r} cannot use; "
                f"wanted {able}, or no connection"
            )
        if endpoint or not several or without_store is None or backend is not SERVED:
            return {}
        return _with_own_options(values, without_store(defaults().configs))
    if not (conn_id or endpoint or several):
        return {}  # a job of one node needs no rendezvous
    found = defaults()
    configs: dict[str, Any] = dict(found.configs)
    if not endpoint:
        conn_id = conn_id or found.conn_id
    if several and without_store is not None and not (conn_id or endpoint) and backend is DEFAULT:
        return _with_own_options(values, without_store(configs))
    if conn_id:
        settings = connect(conn_id)
        if name not in {settings.backend, DEFAULT.name}:
            raise ConfigError(
                f"rdzv_backend is {name!r}, but connection {conn_id!r} leads to "
                f"{settings.backend!r}; give rdzv_endpoint instead of the connection, or leave "
                "rdzv_backend out"
            )
        name, endpoint = settings.backend, settings.endpoint
        configs |= settings.configs
    found_parameters = {
        "rdzv_backend": name,
        "rdzv_endpoint": endpoint,
        "rdzv_configs": configs,
    }
    return _with_own_options(values, found_parameters)


def _with_own_options(values: Mapping[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """``parameters``, with the options in the DAG file's ``rdzv_configs`` added."""
    given = values.get("rdzv_configs")
    if given is None or isinstance(given, Mapping):  # `launch_config` refuses anything else
        given = parameters["rdzv_configs"] | dict(given or {})
    return {**parameters, "rdzv_configs": given}
