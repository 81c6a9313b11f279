"""Where the nodes of a task's job meet: what the DAG file says, then its connection, then
``[elastic_launch]``.

``RendezvousPlace`` is what a connection amounts to. It is looked up in the task, when it runs, and
goes from there to the agent over their private socket: it is never an attribute of the operator, a
template or a log line. Nothing here connects to anything. Airflow is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llutil.backends.options import read_options
from llutil.backends.table import BACKENDS, C10D, DEFAULT, DEPLOYMENT_OPTIONS, backend_named
from llutil.errors import ConfigError

__all__ = ["SECTION", "RendezvousDefaults", "RendezvousPlace", "configured", "resolve"]

SECTION = "elastic_launch"
"""The section of Airflow's configuration with this provider's defaults."""


@dataclass(frozen=True, slots=True)
class RendezvousPlace:
    """A rendezvous backend, where it is, and its options; these may hold a password, and are not
    shown.
    """

    backend: str
    endpoint: str
    configs: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousDefaults:
    """What ``[elastic_launch]`` says: a connection for jobs of several nodes, and options of a
    ledger's rendezvous.
    """

    conn_id: str = ""
    configs: Mapping[str, Any] = field(default_factory=dict)


def configured() -> RendezvousDefaults:
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


def resolve(
    values: Mapping[str, Any],
    *,
    several: bool,
    connect: Callable[[str], RendezvousPlace],
    alone: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    defaults: Callable[[], RendezvousDefaults] = configured,
) -> dict[str, Any]:
    """The parameters ``rdzv_*`` that take the place of those in ``values``.

    ``several``: the job may have several nodes. ``connect`` gives what a connection says, by its
    name. ``alone`` gives the parameters of a job whose nodes meet without a store, if they can, by
    the defaults. What the DAG file says in ``rdzv_configs`` counts before what the connection says,
    and that before ``[elastic_launch]``.

    :raises ConfigError: they contradict each other, or the connection cannot be used.
    """
    name = values.get("rdzv_backend") or DEFAULT.name
    backend = backend_named(name)
    endpoint = values.get("rdzv_endpoint") or ""
    conn_id = values.get("rdzv_conn_id")
    if conn_id and endpoint:
        raise ConfigError(
            f"rdzv_conn_id is {conn_id!r} and rdzv_endpoint is {endpoint!r}; give one of them"
        )
    if backend is None or not backend.connection_type:
        if conn_id:
            able = " or ".join(repr(one.name) for one in BACKENDS.values() if one.connection_type)
            raise ConfigError(
                f"rdzv_conn_id is {conn_id!r}, which rdzv_backend {name!r} cannot use; "
                f"wanted {able}, or no connection"
            )
        if endpoint or not several or alone is None or backend is not C10D:
            return {}
        return _own(values, alone(defaults().configs))
    if not (conn_id or endpoint or several):
        return {}  # one node meets nobody
    found = defaults()
    configs: dict[str, Any] = dict(found.configs)
    if not endpoint:
        conn_id = conn_id or found.conn_id
    if several and alone is not None and not (conn_id or endpoint) and backend is DEFAULT:
        return _own(values, alone(configs))  # it may not have been asked for
    if conn_id:
        said = connect(conn_id)
        if name not in {said.backend, DEFAULT.name}:
            raise ConfigError(
                f"rdzv_backend is {name!r}, but connection {conn_id!r} leads to {said.backend!r}; "
                "give rdzv_endpoint in its place, or leave rdzv_backend out"
            )
        name, endpoint = said.backend, said.endpoint
        configs |= said.configs
    place = {"rdzv_backend": name, "rdzv_endpoint": endpoint, "rdzv_configs": configs}
    return _own(values, place)


def _own(values: Mapping[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """``place``, with what the DAG file says of its options."""
    given = values.get("rdzv_configs")
    if given is None or isinstance(given, Mapping):  # else: for `launch_config` to say
        given = place["rdzv_configs"] | dict(given or {})
    return {**place, "rdzv_configs": given}
