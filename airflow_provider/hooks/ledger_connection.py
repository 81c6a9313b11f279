"""``LedgerHook``: an Airflow connection to a store as the place where a job's nodes meet, whichever
store it is.

The hook reads the connection and hands on what it says; the agent is the one that connects. "Test
connection" asks a process of its own. So neither grpc nor kazoo is imported in a process of
Airflow.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from airflow.sdk import BaseHook

from airflow_provider.parameters.rendezvous import RendezvousPlace
from llutil.errors import ConfigError

__all__ = ["LedgerHook", "StoreKind"]

_PROBE = "llutil.ledgers.connection_test"
_PROBED_WITHIN = 30.0  # seconds; it takes ten at most once it has started
_LEASE = 10.0  # seconds, as a job would ask for if nobody says something else
_TIMES = ("timeout", "last_call_timeout", "lease_ttl")
_HAS_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKind:
    """A kind of store: ``backend`` is its name for ``rdzv_backend``, ``port`` what its clients
    expect.

    ``texts`` are the options that a connection's extra may have beside the times. ``has_chroot``: a
    path may follow the hosts, or stand in the extra.
    """

    name: str
    backend: str
    port: int
    texts: tuple[str, ...]
    has_chroot: bool = False

    def place(self, connection: Any) -> RendezvousPlace:
        """What ``connection``, of this kind, says.

        :raises ConfigError: it says something that cannot be; all problems are listed.
        """
        whose = f"connection {connection.conn_id!r}"
        extra, problems = self._extra(connection, whose)
        host, chroot = connection.host or "", ""
        if self.has_chroot:
            host, chroot, found = _chroot(host, extra.get("chroot") or "", whose)
            problems += found
        endpoints = [part.strip() for part in host.split(",") if part.strip()]
        if not endpoints:
            problems.append(f"{whose} has no host; wanted {self.name}'s host:port[,host:port...]")
        if "://" in (connection.host or ""):
            problems.append(
                f"{whose} has the host {connection.host!r}; wanted host:port without a scheme (a cacert means TLS)"
            )
        configs: dict[str, Any] = {
            "user": connection.login,
            "password": connection.password,
            **{name: extra[name] for name in self.texts if name in extra},
        }
        configs = {name: value for name, value in configs.items() if value}
        if ("user" in configs) != ("password" in configs):
            problems.append(f"{whose} has only one of login and password; give both or neither")
        for name in _TIMES:
            if extra.get(name) not in {None, ""}:
                try:
                    configs[name] = float(extra[name])
                except (TypeError, ValueError):
                    problems.append(
                        f"{whose} has {name} = {extra[name]!r}; wanted a number of seconds"
                    )
        if problems:
            raise ConfigError(problems)
        port = connection.port or self.port
        parts = [part if _HAS_PORT.fullmatch(part) else f"{part}:{port}" for part in endpoints]
        return RendezvousPlace(self.backend, ",".join(parts) + chroot, configs)

    def _extra(self, connection: Any, whose: str) -> tuple[Mapping[str, Any], list[str]]:
        """The connection's extra, and what is wrong with it."""
        try:
            extra = json.loads(connection.extra or "{}")
        except ValueError:
            return {}, [f"{whose} has an extra that is no JSON; wanted a JSON object"]
        if not isinstance(extra, dict):
            return {}, [f"{whose} has an extra that is no JSON object"]
        texts = (*self.texts, *(("chroot",) if self.has_chroot else ()))
        known = (*texts, *_TIMES)
        problems = []
        if unknown := sorted(extra.keys() - set(known)):
            problems.append(
                f"{whose} has {', '.join(map(repr, unknown))} in its extra; it may have {', '.join(known)}"
            )
        wrong = [name for name in texts if not isinstance(extra.get(name), str | None)]
        problems += [f"{whose} has {name} = {extra[name]!r}; wanted text" for name in wrong]
        return {name: value for name, value in extra.items() if name not in wrong}, problems


def _chroot(host: str, chroot: str, whose: str) -> tuple[str, str, list[str]]:
    """The hosts, the chroot ("" or "/path"), and what is wrong with it."""
    if "://" in host:
        return host, "", []  # somebody else complains
    hosts, slash, path = host.partition("/")
    paths = {"/" + text.strip("/") for text in (path, chroot) if text.strip("/")}
    if len(paths) > 1:
        return hosts, "", [f"{whose} has two chroots, {slash + path!r} and {chroot!r}; give one"]
    return hosts, "".join(paths), []


class LedgerHook(BaseHook):
    """What a connection to a store says. A subclass names the ``kind`` of store, and Airflow's own
    attributes.
    """

    kind: ClassVar[StoreKind]

    def __init__(self, conn_id: str) -> None:
        super().__init__()
        self._conn_id = conn_id

    def get_conn(self) -> RendezvousPlace:
        """Where nodes meet, and how they get in. Nothing is connected to.

        :raises ConfigError: the connection says something that cannot be; all problems are listed.
        """
        return self.kind.place(self.get_connection(self._conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the store can be used as a node would use it: a record is written, read and
        removed again.

        TLS files are looked for on the machine that asks, which is the api-server when it is asked
        from the UI.
        """
        try:
            place = self.get_conn()
        except ConfigError as error:
            return False, str(error)
        access = {key: value for key, value in place.configs.items() if key not in _TIMES}
        ttl = place.configs.get("lease_ttl", _LEASE)
        asked = {"backend": place.backend, "endpoint": place.endpoint, "lease_ttl": ttl}
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", _PROBE],
                input=json.dumps({**asked, "access": access}),
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
