"""kazoo's client as ``config`` wants it: hosts, login, TLS, pauses, and where it logs.

Of ours this module imports ``llutil.errors`` and the configuration's values.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from kazoo.client import KazooClient
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE, make_acl

from llutil.errors import ConfigError
from llutil.ledgers.zookeeper.config import ZooKeeperConfig

__all__ = ["KazooLog", "check_sasl", "make_client"]

_PAUSE = (0.05, 0.5)
"""Seconds between two attempts to connect: at first, and at most."""


class KazooLog(logging.LoggerAdapter[logging.Logger]):
    """Where kazoo logs: all at the lowest level, since each lost connection is a warning to it.

    Keeps the last trouble in words.
    """

    def __init__(self) -> None:
        super().__init__(logging.getLogger(f"{__name__}.kazoo"), None)
        self.trouble = ""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, Any]:
        """As it is: there is nothing to add."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at the lowest level."""
        if level >= logging.WARNING and "CONNECTING" not in str(msg):
            self.trouble = str(msg) % args if args else str(msg)
        super().log(min(level, logging.DEBUG), msg, *args, **kwargs)


def check_sasl(config: ZooKeeperConfig) -> None:
    """:raises ConfigError: its SASL mechanism is not to be had in this installation; kazoo finds
    out too late.
    """
    if not config.sasl_mechanism:
        return
    try:
        from puresasl.mechanisms import mechanisms
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"sasl_mechanism {config.sasl_mechanism!r} needs the package pure-sasl: "
            "pip install pure-sasl"
        ) from error
    if config.sasl_mechanism not in mechanisms:
        known = ", ".join(sorted(mechanisms))
        raise ConfigError(f"sasl_mechanism is {config.sasl_mechanism!r}; pure-sasl knows {known}")


def make_client(
    config: ZooKeeperConfig, timeout: float, identity: tuple[int, bytes] | None, log: KazooLog
) -> Any:
    """A client that is not started yet.

    ``timeout`` is the session's, in seconds; ``identity`` the id and password of a session to go
    on with, or None for a new one.
    """
    login: dict[str, Any] = {}
    acl = OPEN_ACL_UNSAFE
    if config.user:
        acl = [make_acl("auth", "", all=True)]
        if config.sasl_mechanism:
            login["sasl_options"] = {
                "mechanism": config.sasl_mechanism,
                "username": config.user,
                "password": config.password,
            }
        else:
            login["auth_data"] = [("digest", f"{config.user}:{config.password}")]
    if config.cacert:
        login |= {"use_ssl": True, "ca": config.cacert, "check_hostname": True}
        login |= {"certfile": config.cert or None, "keyfile": config.key or None}
    first, most = _PAUSE
    return KazooClient(
        hosts=config.hosts,
        timeout=timeout,
        client_id=identity,
        default_acl=acl,
        connection_retry=KazooRetry(max_tries=-1, delay=first, max_delay=most),
        logger=log,
        **login,
    )
