"""Where a ZooKeeper is and how to prove who we are: ``ZooKeeperConfig``, checked once, when it is
made.

TLS is used if and only if ``cacert`` is given, and then hosts have to be those in their
certificates. This module does no I/O and does not import kazoo.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from llutil.backends.endpoints import Endpoint
from llutil.backends.table import ZEUS_ADAPTER
from llutil.errors import ConfigError, Problem
from llutil.ledgers.credentials import contradictions
from llutil.ledgers.keys import Namespace, check_key

__all__ = ["ZooKeeperConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooKeeperConfig:
    """How to reach a ZooKeeper, and as whom.

    ``chroot`` is the node below which everything happens; it has to exist. ``namespace`` is the
    folder there that this deployment has for itself. ``user`` and ``password`` are ZooKeeper's
    digest authentication, or those of SASL if ``sasl_mechanism`` says so (needs the package
    pure-sasl). ``cacert``, ``cert`` and ``key`` are paths of PEM files. With a user, nodes are
    created for that user alone (``auth`` ACL), else for everybody.

    :raises ConfigError: the values do not go together; it lists all that is wrong.
    """

    endpoints: tuple[Endpoint, ...]
    chroot: str = ""
    namespace: str = "llutil"
    user: str = ""
    password: str = field(default="", repr=False)
    sasl_mechanism: str = ""
    cacert: str = ""
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    @classmethod
    def at(cls, text: str, **access: str) -> ZooKeeperConfig:
        """The configuration for ``host:port[,host:port...][/chroot]``. :raises ConfigError: as the
        class.
        """
        _, chroot = ZEUS_ADAPTER.split_chroot(text)
        return cls(endpoints=ZEUS_ADAPTER.endpoints(text), chroot=chroot, **access)

    @property
    def hosts(self) -> str:
        """The same as text, as ZooKeeper's clients take it."""
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
        yield from contradictions(self, "ZooKeeper")
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
