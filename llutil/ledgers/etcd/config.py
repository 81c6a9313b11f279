"""``EtcdConfig``: where an etcd is and who the client is. It is checked once, when it is made.

TLS is used if and only if ``cacert`` is given. This module does no I/O, and imports neither grpc
nor etcd3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError, Problem
from llutil.ledgers.credentials import credential_problems
from llutil.ledgers.keys import Namespace
from llutil.secret import concealed

__all__ = ["EtcdConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """How to reach an etcd, and as which user.

    ``cacert``, ``cert`` and ``key`` are paths of PEM files. ``server_name`` is the name in the
    servers' certificates, if it is not the host of the endpoint. ``namespace`` is the prefix of
    this deployment's keys in etcd.

    :raises ConfigError: the values do not fit each other; it lists all problems.
    """

    endpoints: tuple[Endpoint, ...]
    namespace: str = "llutil"
    user: str = ""
    password: str = ""
    cacert: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "password", concealed(self.password))
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[Problem]:
        if not self.endpoints:
            yield Problem("endpoints", "of etcd are missing; wanted at least one host:port")
        yield from credential_problems(self, "etcd")
        if self.server_name and not self.cacert:
            text = f"{self.server_name!r} means nothing without TLS; give 'cacert' too"
            yield Problem("server_name", text)
        try:
            Namespace(self.namespace)
        except ConfigError as error:
            yield from error.problems

    def __str__(self) -> str:
        return "etcd at " + ", ".join(str(endpoint) for endpoint in self.endpoints)
