"""``EtcdHook``: an Airflow connection of type ``etcd``, as the place where a job's nodes meet.

The hook reads the connection and hands on what it says; the agent is the one that connects. "Test
connection" asks a process of its own. So neither grpc nor etcd3 is imported in a process of Airflow.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseHook

from airflow_provider.meeting import Place
from llutil.errors import ConfigError

__all__ = ["EtcdHook"]

_PORT = 2379  # etcd's own default for clients
_PROBE = "llutil.ledgers.etcd.probe"
_PROBED_WITHIN = 30.0  # seconds; it takes ten at most once it has started
_TEXTS = ("namespace", "cacert", "cert", "key", "server_name")
_TIMES = ("timeout", "last_call_timeout", "lease_ttl")
_HAS_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):\d+")


class EtcdHook(BaseHook):
    """What a connection of type ``etcd`` says.

    The connection's fields: *host* holds one endpoint or several, ``etcd-0:2379,etcd-1:2379``; one that names no
    port has that of the field *port*, or 2379. *login* and *password* are etcd's user. *extra* is a JSON object
    with any of ``namespace`` (the prefix that this deployment has for itself), ``cacert``, ``cert``, ``key``
    (paths of PEM files on the worker), ``server_name``, and the times ``timeout``, ``last_call_timeout`` and
    ``lease_ttl`` in seconds. The same as JSON, for a secrets backend or an environment variable::

        {"conn_type": "etcd", "host": "etcd-0:2379,etcd-1:2379", "login": "train", "password": "...",
         "extra": {"namespace": "prod", "cacert": "/etc/etcd/ca.pem"}}

    Airflow does not read a URI with a comma in it (3.3), unless the comma is written as ``%2C``.

    :param etcd_conn_id: the connection's id.
    """

    conn_name_attr = "etcd_conn_id"
    default_conn_name = "etcd_default"
    conn_type = "etcd"
    hook_name = "etcd"

    def __init__(self, etcd_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.etcd_conn_id = etcd_conn_id

    def get_conn(self) -> Place:
        """Where nodes meet, and how they get in. Nothing is connected to.

        :raises ConfigError: the connection says something that cannot be; all problems are listed.
        """
        return place_of(self.get_connection(self.etcd_conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """Whether etcd can be used as a node would use it: a record is written, read and removed again.

        TLS files are looked for on the machine that asks, which is the api-server when it is asked from the UI.
        """
        try:
            place = self.get_conn()
        except ConfigError as error:
            return False, str(error)
        fields = {"endpoints": place.endpoint} | {
            key: value for key, value in place.configs.items() if key not in _TIMES
        }
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", _PROBE],
                input=json.dumps(fields),
                capture_output=True,
                text=True,
                timeout=_PROBED_WITHIN,
                check=True,
            )
            answer = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            return False, f"no answer about {place.endpoint} within {_PROBED_WITHIN:g} s"
        except subprocess.CalledProcessError as error:
            return False, f"the process that tries {place.endpoint} failed: {error.stderr[-1000:]}"
        return answer["fits"], answer["text"]


def place_of(connection: Any) -> Place:
    """What ``connection``, of type ``etcd``, says.

    :raises ConfigError: it says something that cannot be; all problems are listed.
    """
    whose = f"connection {connection.conn_id!r}"
    endpoints = [part.strip() for part in (connection.host or "").split(",") if part.strip()]
    problems = [] if endpoints else [f"{whose} has no host; wanted etcd's host:port[,host:port...]"]
    if any("://" in part for part in endpoints):
        problems.append(
            f"{whose} has the host {connection.host!r}; wanted host:port without a scheme (a cacert means TLS)"
        )
    extra, found = _extra(connection, whose)
    problems += found
    port = connection.port or _PORT
    configs: dict[str, Any] = {
        "user": connection.login,
        "password": connection.password,
        **{name: extra[name] for name in _TEXTS if name in extra},
    }
    configs = {name: value for name, value in configs.items() if value}
    if ("user" in configs) != ("password" in configs):
        problems.append(f"{whose} has only one of login and password; give both or neither")
    for name in _TIMES:
        if extra.get(name) not in {None, ""}:
            try:
                configs[name] = float(extra[name])
            except (TypeError, ValueError):
                problems.append(f"{whose} has {name} = {extra[name]!r}; wanted a number of seconds")
    if problems:
        raise ConfigError(problems)
    return Place(
        backend="etcd",
        endpoint=",".join(
            part if _HAS_PORT.fullmatch(part) else f"{part}:{port}" for part in endpoints
        ),
        configs=configs,
    )


def _extra(connection: Any, whose: str) -> tuple[Mapping[str, Any], list[str]]:
    """The connection's extra, and what is wrong with it."""
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        return {}, [f"{whose} has an extra that is no JSON; wanted a JSON object"]
    if not isinstance(extra, dict):
        return {}, [f"{whose} has an extra that is no JSON object"]
    known = (*_TEXTS, *_TIMES)
    problems = []
    if unknown := sorted(extra.keys() - set(known)):
        problems.append(
            f"{whose} has {', '.join(map(repr, unknown))} in its extra; it may have {', '.join(known)}"
        )
    problems += [
        f"{whose} has {name} = {extra[name]!r}; wanted text"
        for name in _TEXTS
        if not isinstance(extra.get(name), str | None)
    ]
    return extra, problems
