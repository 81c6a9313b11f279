"""Where an etcd is and how to prove who we are: ``EtcdConfig``, checked once, when it is made.

TLS is used if and only if ``cacert`` is given. This module does no I/O, and imports neither grpc
nor etcd3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError, Problem
from llutil.ledgers.credentials import contradictions
from llutil.ledgers.keys import Namespace

__all__ = ["EtcdConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """How to reach an etcd, and as whom.

    ``cacert``, ``cert`` and ``key`` are paths of PEM files. ``server_name`` is the name that the
    servers' certificates carry, where it is not the one in the endpoint. ``namespace`` is the
    folder of etcd that this deployment has for itself.

    :raises ConfigError: the values do not go together; it lists all that is wrong.
    """

    endpoints: tuple[Endpoint, ...]
    namespace: str = "llutil"
    user: str = ""
    password: str = field(default="", repr=False)
    cacert: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[Problem]:
        if not self.endpoints:
            yield Problem("endpoints", "of etcd are missing; wanted at least one host:port")
        yield from contradictions(self, "etcd")
        if self.server_name and not self.cacert:
            text = f"{self.server_name!r} means nothing without TLS; give 'cacert' too"
            yield Problem("server_name", text)
        try:
            Namespace(self.namespace)
        except ConfigError as error:
            yield from error.problems

    def __str__(self) -> str:
        return "etcd at " + ", ".join(str(endpoint) for endpoint in self.endpoints)
