"""What the configurations of all stores have in common: user, password and TLS files.

TLS is used if and only if there is a CA file. A certificate without its key or without the CA is
refused, so that no incomplete setting leads to plain text.

This module may import the standard library, ``llutil.errors`` and ``llutil.secret``, and nothing
else. It reads the TLS files only in ``read_tls``.
"""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llutil.errors import ConfigError, Problem
from llutil.secret import SecretBytes

__all__ = [
    "Credentials",
    "TlsContents",
    "TlsFiles",
    "TlsReader",
    "client_context",
    "credential_problems",
    "read_tls",
    "warn_of_plain_text",
]

_log = logging.getLogger(__name__)


class TlsFiles(Protocol):
    """The paths of PEM files; empty if not given."""

    @property
    def cacert(self) -> str:
        """The CA that signed the servers' certificates."""

    @property
    def cert(self) -> str:
        """The client's certificate."""

    @property
    def key(self) -> str:
        """The private key of the client's certificate."""


class Credentials(TlsFiles, Protocol):
    """The part of a store's configuration that proves who the client is."""

    @property
    def user(self) -> str:
        """The user's name; empty for an anonymous client."""

    @property
    def password(self) -> str:
        """The user's password."""


def credential_problems(credentials: Credentials, store: str) -> Iterator[Problem]:
    """The problems of credentials that do not fit each other. ``store`` is the store's name for
    people.
    """
    if credentials.password and not credentials.user:
        yield Problem("password", f"for {store} is given without a user; give both or neither")
    if credentials.user and not credentials.password:
        text = f"{credentials.user!r} has no password for {store}; give both or neither"
        yield Problem("user", text)
    if credentials.cert and not credentials.key:
        yield Problem("cert", f"{credentials.cert!r} has no key; give 'key' too")
    if credentials.key and not credentials.cert:
        yield Problem("key", f"{credentials.key!r} has no certificate; give 'cert' too")
    if (credentials.cert or credentials.key) and not credentials.cacert:
        text = (
            f"is missing beside a client certificate; TLS to {store} needs the CA that signed the "
            "servers' certificates, and plain text is not used instead"
        )
        yield Problem("cacert", text)


def warn_of_plain_text(credentials: Credentials, store: str) -> None:
    """Log a warning if a password is to be used without TLS; once in the life of a process."""
    if credentials.password and not credentials.cacert:
        _warn_of_plain_text(store)


@functools.cache
def _warn_of_plain_text(store: str) -> None:
    _log.warning(
        "a password is sent to %s without TLS, so whoever can read this network can read it; give "
        "'cacert', the CA that signed the servers' certificates",
        store,
    )


@dataclass(frozen=True, slots=True)
class TlsContents:
    """The contents of the TLS files, in PEM form."""

    cacert: bytes
    cert: bytes | None
    key: SecretBytes | None


def _read(files: TlsFiles, name: str, problems: list[Problem]) -> bytes:
    path: str = getattr(files, name)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        problems.append(Problem(name, f"{path!r} cannot be read: {error.strerror}"))
        return b""


def read_tls(files: TlsFiles) -> TlsContents | None:
    """The TLS files, read and checked; None if there is no CA file.

    Python's ssl module checks them here. gRPC and kazoo would only log what is wrong, and fail
    later without a reason.

    :raises ConfigError: a file cannot be read, is not PEM, or the key does not fit the certificate.
    """
    if not files.cacert:
        return None
    problems: list[Problem] = []
    cacert = _read(files, "cacert", problems)
    cert = _read(files, "cert", problems) if files.cert else None
    key = SecretBytes(_read(files, "key", problems)) if files.key else None
    if problems:
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=files.cacert)
    except OSError as error:  # ssl's own ones, and those of a file that is gone now
        text = f"{files.cacert!r} holds no certificate in PEM form ({error})"
        problems.append(Problem("cacert", text))
    if files.cert:
        try:
            context.load_cert_chain(files.cert, files.key, password="")
        except OSError as error:
            text = (
                f"{files.cert!r} cannot be used with key {files.key!r}; wanted an "
                f"unencrypted PEM pair that belongs together ({error})"
            )
            problems.append(Problem("cert", text))
    if problems:
        raise ConfigError(problems)
    return TlsContents(cacert, cert, key)


class TlsReader:
    """The TLS files of a client, read again when they have changed: certificates are rotated.

    :raises ConfigError: as ``read_tls``.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._states = _states(files)
        self._unusable: object = None
        self.contents = read_tls(files)

    def renew(self) -> None:
        """Read the files again, if they have changed and can be used. Else ``contents`` stays the
        same object: somebody may be in the middle of changing them.
        """
        states = _states(self._files)
        if states == self._states:
            return
        try:
            self.contents = read_tls(self._files)
        except ConfigError as error:
            if states != self._unusable:
                _log.warning("TLS files have changed and cannot be used yet: %s", error)
            self._unusable = states
        else:
            self._states = states


def _states(files: TlsFiles) -> list[tuple[int, ...]]:
    """What is different after a file was changed or replaced."""
    states: list[tuple[int, ...]] = []
    for path in (files.cacert, files.cert, files.key):
        try:
            found = Path(path).stat() if path else None
        except OSError:
            found = None
        states.append((found.st_ino, found.st_size, found.st_mtime_ns) if found else ())
    return states


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """What one TLS connection is made with; the files are read for it. The CA file is the only
    authority: not the system's ones beside it.

    :raises OSError: a file cannot be used.
    """
    context = ssl.create_default_context(cafile=files.cacert)
    # Python 3.13 refuses certificates that gRPC and older Pythons take (no key identifier).
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.cert:
        context.load_cert_chain(files.cert, files.key)
    return context
