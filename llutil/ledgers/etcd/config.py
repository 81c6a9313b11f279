"""Where an etcd is and how to prove who we are: ``EtcdConfig``, checked once, when it is made.

TLS is used if and only if ``cacert`` is given. A certificate without its key, or without the CA, is
refused here, so that no mixed-up setting ever ends in plain text on the wire.

This module does no I/O except to read the TLS files when it is asked to. It imports neither grpc nor etcd3.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llutil.errors import ConfigError
from llutil.ledgers.endpoints import Endpoint
from llutil.ledgers.keys import Namespace

__all__ = ["EtcdConfig", "Tls", "read_tls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """How to reach an etcd, and as whom.

    ``cacert``, ``cert`` and ``key`` are paths of PEM files. ``server_name`` is the name that the servers'
    certificates carry, where it is not the one in the endpoint. ``namespace`` is the folder of etcd that this
    deployment has for itself.

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

    def _problems(self) -> Iterator[str]:
        if not self.endpoints:
            yield "etcd has no endpoint; wanted at least one host:port"
        if self.password and not self.user:
            yield "a password for etcd without a user; give both or neither"
        if self.user and not self.password:
            yield f"the etcd user {self.user!r} has no password; give both or neither"
        if self.cert and not self.key:
            yield f"the client certificate {self.cert!r} has no key; give 'key' too"
        if self.key and not self.cert:
            yield f"the client key {self.key!r} has no certificate; give 'cert' too"
        if (self.cert or self.key) and not self.cacert:
            yield (
                "a client certificate without 'cacert'; TLS to etcd needs the CA that signed the "
                "servers' certificates, and plain text is not used instead"
            )
        if self.server_name and not self.cacert:
            yield f"server_name {self.server_name!r} means nothing without TLS; give 'cacert' too"
        try:
            Namespace(self.namespace)
        except ConfigError as error:
            yield from error.problems

    def __str__(self) -> str:
        return "etcd at " + ", ".join(str(endpoint) for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class Tls:
    """The contents of the TLS files, as PEM."""

    cacert: bytes
    cert: bytes | None
    key: bytes | None = field(repr=False)


def _read(path: str, what: str, problems: list[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        problems.append(f"{what} {path!r} cannot be read: {error.strerror}")
        return b""


def read_tls(config: EtcdConfig) -> Tls | None:
    """The TLS files of ``config``, read and checked; None if it asks for plain text.

    Python's own ssl checks them, since gRPC only logs what it finds wrong, and fails later for no stated reason.

    :raises ConfigError: a file cannot be read, is not PEM, or the key is not the certificate's.
    """
    if not config.cacert:
        return None
    problems: list[str] = []
    cacert = _read(config.cacert, "the CA file", problems)
    cert = _read(config.cert, "the client certificate", problems) if config.cert else None
    key = _read(config.key, "the client key", problems) if config.key else None
    if problems:
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=config.cacert)
    except ssl.SSLError as error:
        problems.append(f"the CA file {config.cacert!r} holds no certificate in PEM form ({error})")
    if config.cert:
        try:
            context.load_cert_chain(config.cert, config.key, password="")
        except ssl.SSLError as error:
            problems.append(
                f"the client certificate {config.cert!r} and key {config.key!r} cannot be used; wanted an "
                f"unencrypted PEM pair that belongs together ({error})"
            )
    if problems:
        raise ConfigError(problems)
    return Tls(cacert, cert, key)
