"""Makes kazoo's client from a configuration: hosts, login, TLS, retry pauses and logger.

This module may import kazoo, ``llutil.errors``, ``llutil.secret``, ``llutil.ledgers.credentials``
and ``config`` of this folder.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import MutableMapping
from typing import Any

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.serialization import SASL, Auth, Connect
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE, make_acl

from llutil.errors import ConfigError
from llutil.ledgers.credentials import client_context, warn_of_plain_text
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.secret import Secret, concealed

__all__ = ["KazooHandler", "KazooLog", "check_sasl", "make_client"]

_PAUSE = (0.05, 0.5)
"""Seconds between two attempts to connect: first value and maximum."""

_ATTEMPTS = 4
"""How often each server may fail to answer a new connection before a session is over."""

_SHORTEST = 0.5
"""Seconds that a server has for that, at least."""


class KazooHandler(SequentialThreadingHandler):
    """kazoo's threads, and its connections: with our TLS, since kazoo's own would trust the
    system's authorities beside the CA file; and with a time limit for their beginning.

    kazoo lets a server take as long as the ``session`` lasts (in seconds) to answer a new
    connection, so one that never answers costs the session (kazoo 2.11). A server that is just
    starting may be such a one: it fails inside, and leaves the connection open (ZooKeeper 3.8).
    """

    def __init__(self, config: ZooKeeperConfig, session: float) -> None:
        super().__init__()
        self._config = config
        servers = config.hosts.count(",") + 1
        self._limit = max(session / _ATTEMPTS / servers, _SHORTEST)
        self.cut_until = 0.0
        """Before this (``time.monotonic()``), no connection can be made: a fault on purpose."""
        self._begun: socket.socket | None = None
        """The connection that the server has yet to accept."""

    def create_connection(
        self, address: Any, *, hostname: str, timeout: float, **options: Any
    ) -> socket.socket:
        """A connection to ``address`` of the server ``hostname``; kazoo's own ``options`` are not
        used.

        :raises OSError: it could not be made.
        """
        del options
        if time.monotonic() < self.cut_until:
            raise OSError("this node is cut off from its store, on purpose")
        limit = min(timeout, self._limit)
        made: socket.socket = super().create_connection(address, timeout=limit)
        if self._config.cacert:
            plain = made
            try:
                made = client_context(self._config).wrap_socket(plain, server_hostname=hostname)
            except BaseException:
                plain.close()
                raise
        self._begun = made
        return made

    def select(
        self, read: Any, write: Any, errors: Any, timeout: float | None = None
    ) -> tuple[Any, Any, Any]:
        """Wait for descriptors as ``select.select`` does, but for a limited time for the first
        answers on a new connection.
        """
        if len(read) > 1:  # kazoo serves requests: the connection has begun
            self._begun = None
        elif read and read[0] is self._begun:
            timeout = self._limit if timeout is None else min(timeout, self._limit)
        found: tuple[Any, Any, Any] = super().select(read, write, errors, timeout)
        return found


class KazooLog(logging.LoggerAdapter[logging.Logger]):
    """The logger for kazoo. It logs everything at DEBUG, because kazoo logs each lost connection as
    a warning.

    ``last_warning`` is the text of the last warning that names a cause; empty if there was none.
    """

    def __init__(self) -> None:
        super().__init__(logging.getLogger(f"{__name__}.kazoo"), None)
        self.last_warning = ""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, Any]:
        """Return both unchanged; required by ``LoggerAdapter``."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at DEBUG."""
        shown = tuple(map(_shown, args))
        if level >= logging.WARNING and "CONNECTING" not in str(msg):
            self.last_warning = str(msg) % shown if shown else str(msg)
        super().log(min(level, logging.DEBUG), msg, *shown, **kwargs)


def _shown(value: object) -> object:
    """What the log shows of an argument of kazoo's: no password, of a user or a session.

    kazoo logs whole requests and their answers, and sessions' passwords as bytes.
    """
    if isinstance(value, Auth | Connect | SASL):
        return type(value).__name__
    return concealed(value) if isinstance(value, bytes) else value


def check_sasl(config: ZooKeeperConfig) -> None:
    """Check the SASL mechanism here, because kazoo does so only when it connects.

    :raises ConfigError: this installation does not have the mechanism.
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

    ``timeout`` is the session's, in seconds. ``identity`` is the id and the password of an existing
    session; None for a new session.
    """
    warn_of_plain_text(config, "ZooKeeper")
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
            login["auth_data"] = [("digest", Secret(f"{config.user}:{config.password}"))]
    first, most = _PAUSE
    return KazooClient(
        hosts=config.hosts,
        timeout=timeout,
        client_id=identity,
        default_acl=acl,
        connection_retry=KazooRetry(max_tries=-1, delay=first, max_delay=most),
        logger=log,
        handler=KazooHandler(config, timeout),
        **login,
    )
