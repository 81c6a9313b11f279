"""``ServedConfig``: where a served ledger is, and the secret of its clients.

It is checked when it is made. This module does no I/O.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError, Problem
from llutil.ledgers.keys import Namespace
from llutil.secret import concealed

__all__ = ["ServedConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedConfig:
    """How to reach the server, and what it has to be.

    ``secret``: what the server and its clients know, and nobody else; without one, everybody who
    reaches the port is a client. ``run_id``: the job that the server must be of; empty: any.
    ``returns``: whether a server that has gone may come back at the same endpoint, as one with a
    fixed port does when its node is started again.

    :raises ConfigError: the values make no sense; it lists all problems.
    """

    endpoint: Endpoint
    secret: str = field(default="", repr=False)
    run_id: str = ""
    namespace: str = "llutil"
    returns: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", concealed(self.secret))
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[Problem]:
        if _is_wildcard(self.endpoint.host):
            text = (
                f"{self.endpoint} is every node's address; wanted that of the one node that serves "
                "the ledger, as the other nodes reach it"
            )
            yield Problem("rdzv_endpoint", text)
        try:
            Namespace(self.namespace)
        except ConfigError as error:
            yield from error.problems

    def __str__(self) -> str:
        return f"the ledger served at {self.endpoint}"


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == "*"
