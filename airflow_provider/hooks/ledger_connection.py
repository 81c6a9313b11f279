"""``LedgerHook``: reads an Airflow connection to the store where a job's nodes meet, for any store.

The hook only reads the connection; the agent connects to the store. "Test connection" runs in
another process. So no process of Airflow imports grpc or kazoo.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, ClassVar

from airflow.sdk import BaseHook

from airflow_provider.parameters.rendezvous import RendezvousSettings
from llutil.backends.backend import Backend
from llutil.backends.endpoints import shown_endpoint
from llutil.backends.options import Source, read_options
from llutil.backends.table import conceal_options
from llutil.errors import ConfigError, Problem
from llutil.secret import concealed

__all__ = ["LedgerHook", "settings_of"]

_TEST_MODULE = "llutil.ledgers.connection_test"
_TESTED_WITHIN = 30.0
"""How long the test process may run, in seconds. The test takes at most 10 s once it starts."""
_HAS_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):\d+")


def settings_of(connection: Any, backend: Backend) -> RendezvousSettings:
    """What ``connection``, which leads to ``backend``, says.

    :raises ConfigError: it says something that cannot be; all problems are listed.
    """
    whose = f"connection {connection.conn_id!r}"
    # Airflow's repr of a connection would show them.
    connection.password = concealed(connection.password)
    if "@" in (connection.host or ""):
        connection.host = concealed(connection.host)
    extra, problems = _extra(connection, whose)
    owner = f"a connection of type {connection.conn_type!r}"
    found, wrong = read_options(backend.connection_options, extra, whose, owner)
    problems += wrong
    fields = {Source.LOGIN: connection.login, Source.PASSWORD: connection.password}
    login = {o.key: fields[o.source] for o in backend.options if fields.get(o.source)}
    if bool(connection.login) != bool(connection.password):
        problems.append(Problem(whose, "has only one of login and password; give both or neither"))
    host, chroot = connection.host or "", ""
    if "://" in host:
        text = (
            f"has the host {shown_endpoint(host)}; wanted host:port without a scheme (a cacert "
            "means TLS)"
        )
        problems.append(Problem(whose, text))
    elif "@" in host:
        text = f"has the host {shown_endpoint(host)}; wanted host:port, and the user in the login"
        problems.append(Problem(whose, text))
    elif backend.chroot is not None:
        host, path = backend.split_chroot(host)
        given = str(found.pop(backend.chroot.key, ""))
        paths = {"/" + text.strip("/") for text in (path, given) if text.strip("/")}
        chroot = "".join(paths)
        if len(paths) > 1:
            problems.append(Problem(whose, f"has two chroots, {path!r} and {given!r}; give one"))
    # One of a host that is refused may hold a password, and a traceback may show this list.
    servers = [concealed(part.strip()) for part in host.split(",") if part.strip()]
    if not servers:
        text = f"has no host; wanted host:port[,host:port...] of {backend.title}"
        problems.append(Problem(whose, text))
    if problems:
        raise ConfigError(problems)
    port = connection.port or backend.default_port
    parts = [part if _HAS_PORT.fullmatch(part) else f"{part}:{port}" for part in servers]
    return RendezvousSettings(backend.name, ",".join(parts) + chroot, found | login)


def _extra(connection: Any, whose: str) -> tuple[dict[str, Any], list[Problem]]:
    """The connection's extra, and what is wrong with it."""
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        return {}, [Problem(whose, "has an extra that is no JSON; wanted a JSON object")]
    if not isinstance(extra, dict):
        return {}, [Problem(whose, "has an extra that is no JSON object")]
    return dict(conceal_options(extra)), []


class LedgerHook(BaseHook):
    """Reads a connection to a store. A subclass sets the ``backend`` and the class attributes of
    Airflow's hooks.
    """

    backend: ClassVar[Backend]

    def __init__(self, conn_id: str) -> None:
        super().__init__()
        self._conn_id = conn_id

    def get_conn(self) -> RendezvousSettings:
        """The endpoint and the options in the connection. Connects to nothing.

        :raises ConfigError: the connection says something that cannot be; all problems are listed.
        """
        return settings_of(self.get_connection(self._conn_id), self.backend)

    def test_connection(self) -> tuple[bool, str]:
        """Test the store as a node would use it: write a record, read it and remove it.

        TLS files must be on the machine of this process. That is the api-server for a test from the
        UI.
        """
        try:
            place = self.get_conn()
        except ConfigError as error:
            return False, str(error)
        asked = {
            "backend": place.backend,
            "endpoint": place.endpoint,
            "options": dict(place.configs),
        }
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", _TEST_MODULE],
                input=json.dumps(asked),
                capture_output=True,
                text=True,
                timeout=_TESTED_WITHIN,
                check=True,
            )
            answer = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            return False, f"no answer about {place.endpoint} within {_TESTED_WITHIN:g} s"
        except subprocess.CalledProcessError as error:
            return False, f"the process that tries {place.endpoint} failed: {error.stderr[-1000:]}"
        return answer["fits"], answer["text"]
