"""Who we are to a store, and how it is reached in secret: what all stores' configurations have in
common.

TLS is used if and only if there is a CA file. A certificate without its key, or without the CA, is
refused, so that no mixed-up setting ever ends in plain text on the wire.

This module may import nothing but the standard library and ``llutil.errors``. It reads the TLS
files when it is asked to.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llutil.errors import ConfigError, Problem

__all__ = ["Credentials", "TlsContents", "TlsFiles", "contradictions", "read_tls"]


class TlsFiles(Protocol):
    """The paths of PEM files, empty if not given."""

    @property
    def cacert(self) -> str:
        """The CA that signed the servers' certificates."""

    @property
    def cert(self) -> str:
        """The client's certificate."""

    @property
    def key(self) -> str:
        """The key of that."""


class Credentials(TlsFiles, Protocol):
    """The part of a store's configuration that says who we are."""

    @property
    def user(self) -> str:
        """The name, empty for nobody."""

    @property
    def password(self) -> str:
        """The password."""


def contradictions(access: Credentials, store: str) -> Iterator[Problem]:
    """What does not go together; ``store`` is what people call the store."""
    if access.password and not access.user:
        yield Problem("password", f"for {store} is given without a user; give both or neither")
    if access.user and not access.password:
        text = f"{access.user!r} has no password for {store}; give both or neither"
        yield Problem("user", text)
    if access.cert and not access.key:
        yield Problem("cert", f"{access.cert!r} has no key; give 'key' too")
    if access.key and not access.cert:
        yield Problem("key", f"{access.key!r} has no certificate; give 'cert' too")
    if (access.cert or access.key) and not access.cacert:
        text = (
            f"is missing beside a client certificate; TLS to {store} needs the CA that signed the "
            "servers' certificates, and plain text is not used instead"
        )
        yield Problem("cacert", text)


@dataclass(frozen=True, slots=True)
class TlsContents:
    """The contents of the TLS files, as PEM."""

    cacert: bytes
    cert: bytes | None
    key: bytes | None = field(repr=False)


def _read(files: TlsFiles, name: str, problems: list[Problem]) -> bytes:
    path: str = getattr(files, name)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        problems.append(Problem(name, f"{path!r} cannot be read: {error.strerror}"))
        return b""


def read_tls(files: TlsFiles) -> TlsContents | None:
    """The TLS files, read and checked; None if there is no CA file.

    Python's own ssl checks them here, since clients (gRPC, kazoo) only log what they find wrong,
    and fail later for no stated reason.

    :raises ConfigError: a file cannot be read, is not PEM, or the key is not the certificate's.
    """
    if not files.cacert:
        return None
    problems: list[Problem] = []
    cacert = _read(files, "cacert", problems)
    cert = _read(files, "cert", problems) if files.cert else None
    key = _read(files, "key", problems) if files.key else None
    if problems:
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=files.cacert)
    except ssl.SSLError as error:
        text = f"{files.cacert!r} holds no certificate in PEM form ({error})"
        problems.append(Problem("cacert", text))
    if files.cert:
        try:
            context.load_cert_chain(files.cert, files.key, password="")
        except ssl.SSLError as error:
            text = (
                f"{files.cert!r} cannot be used with key {files.key!r}; wanted an "
                f"unencrypted PEM pair that belongs together ({error})"
            )
            problems.append(Problem("cert", text))
    if problems:
        raise ConfigError(problems)
    return TlsContents(cacert, cert, key)
