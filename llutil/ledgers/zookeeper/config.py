"""``ZooKeeperConfig``: where a ZooKeeper is and who the client is. It is checked once, when it is
made.

TLS is used if and only if ``cacert`` is given. Then the endpoints' hosts must be those in the
servers' certificates. This module does no I/O and does not import kazoo.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llutil.backends.endpoints import Endpoint
from llutil.backends.table import ZEUS_ADAPTER
from llutil.errors import ConfigError, Problem
from llutil.ledgers.credentials import credential_problems
from llutil.ledgers.keys import Namespace, check_key
from llutil.secret import concealed

__all__ = ["ZooKeeperConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooKeeperConfig:
    """How to reach a ZooKeeper, and as which user.

    ``chroot`` is the znode below which all others are; it must exist. ``namespace`` is the folder
    there that belongs to this deployment. ``user`` and ``password`` are for ZooKeeper's digest
    authentication; if ``sasl_mechanism`` is given, they are for SASL, which needs the package
    pure-sasl. ``cacert``, ``cert`` and ``key`` are paths of PEM files. With a user, znodes are
    created for that user only (``auth`` ACL), else for everybody.

    :raises ConfigError: the values do not fit each other; it lists all problems.
    """

    endpoints: tuple[Endpoint, ...]
    chroot: str = ""
    namespace: str = "llutil"
    user: str = ""
    password: str = ""
    sasl_mechanism: str = ""
    cacert: str = ""
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "password", concealed(self.password))
        if problems := list(self._problems()):
            raise ConfigError(problems)

    @classmethod
    def at(cls, text: str, **settings: str) -> ZooKeeperConfig:
        """The configuration for the endpoint ``host:port[,host:port...][/chroot]``.

        :raises ConfigError: as the class.
        """
        _, chroot = ZEUS_ADAPTER.split_chroot(text)
        return cls(endpoints=ZEUS_ADAPTER.endpoints(text), chroot=chroot, **settings)

    @property
    def hosts(self) -> str:
        """The endpoints and the chroot as kazoo takes them."""
        return ",".join(map(str, self.endpoints)) + self.chroot

    def _problems(self) -> Iterator[Problem]:
        if not self.endpoints:
            yield Problem("endpoints", "of ZooKeeper are missing; wanted at least one host:port")
        if self.chroot:
            if not self.chroot.startswith("/"):
                yield Problem("chroot", f"{self.chroot!r} does not begin with '/'")
            try:
                check_key(self.chroot[1:])
            except ConfigError:
                text = f"{self.chroot!r} is no path of ZooKeeper; wanted /word[/word...]"
                yield Problem("chroot", text)
        yield from credential_problems(self, "ZooKeeper")
        if ":" in self.user:
            text = f"{self.user!r} has a colon, which digest authentication cannot take"
            yield Problem("user", text)
        if self.sasl_mechanism and not self.user:
            text = f"{self.sasl_mechanism!r} needs a user; give 'user' and 'password'"
            yield Problem("sasl_mechanism", text)
        try:
            Namespace(self.namespace)
        except ConfigError as error:
            yield from error.problems
        if self.namespace.strip("/").split("/")[0] == "zookeeper" and not self.chroot:
            yield Problem("namespace", "'zookeeper' is ZooKeeper's own; choose another")

    def __str__(self) -> str:
        return f"zookeeper at {self.hosts}"
